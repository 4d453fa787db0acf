//! A stream is framed alike however it is cut into reads.
#![no_main]

use libfuzzer_sys::fuzz_target;
use radarflow_proto::syslog::Framer;

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (bytes, cuts) = input;
    let whole = {
        let mut framer = Framer::default();
        let mut messages = framer.push(&bytes);
        messages.extend(framer.finish());
        messages
    };
    let mut framer = Framer::default();
    let mut messages = Vec::new();
    let mut rest = &bytes[..];
    for cut in cuts {
        let (now, later) = rest.split_at(usize::from(cut).min(rest.len()));
        messages.extend(framer.push(now));
        rest = later;
    }
    messages.extend(framer.push(rest));
    messages.extend(framer.finish());
    assert_eq!(messages, whole);
});

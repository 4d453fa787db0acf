//! A request is read or refused, by protobuf and by JSON, and is the same both times: sender and dataflow are told alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use radarflow_proto::otlp::{Signal, count, protobuf, read};

fuzz_target!(|bytes: &[u8]| {
    let Some((which, body)) = bytes.split_first() else { return };
    let signal = Signal::ALL[usize::from(*which) % 3];
    let counted = count(signal, body);
    assert_eq!(counted, count(signal, body));
    let mut given = 0;
    let read = protobuf(signal, body).map(|request| read(signal, &request, &mut |_| given += 1).is_ok());
    match counted {
        Ok(counted) => assert_eq!((read, given), (Ok(true), counted.accepted + counted.rejected)),
        Err(_) => assert!(read != Ok(true) && given == 0),
    }
});

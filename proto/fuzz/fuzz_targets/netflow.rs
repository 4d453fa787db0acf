//! Messages one after the other to one exporter: templates of one are used by the next. What it keeps is bounded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use radarflow_proto::netflow::{Exporter, MAX_EXPORTER_BYTES, domain};

fuzz_target!(|bytes: &[u8]| {
    let mut exporter = Exporter::default();
    let mut rest = bytes;
    let mut position = 0;
    while let [high, low, more @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(more.len());
        let (message, after) = more.split_at(length);
        let _ = domain(message);
        if let Ok(decoded) = exporter.decode(message, (1, position, 1_700_000_000_000_000)) {
            // Every flow takes some bytes of some message; a set that waited is of an earlier one.
            assert!(decoded.flows.len() <= bytes.len());
            assert!(exporter.bytes() <= MAX_EXPORTER_BYTES);
        }
        position += 1;
        rest = after;
    }
});

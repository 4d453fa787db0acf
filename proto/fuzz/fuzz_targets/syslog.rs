//! No line is lost: what does not parse says so and keeps its bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let message = radarflow_proto::syslog::parse(bytes, 1_700_000_000_000_000, chrono_tz::Tz::UTC);
    assert!(message.severity <= 7);
});

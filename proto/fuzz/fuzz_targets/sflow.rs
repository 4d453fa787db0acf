//! sFlow datagrams with whatever headers they carry.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = radarflow_proto::sflow::decode(bytes);
    radarflow_proto::packet::ethernet(bytes, &mut Default::default());
    radarflow_proto::packet::ip(bytes, &mut Default::default());
});

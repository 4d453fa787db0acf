//! sFlow datagrams with whatever headers they carry.
#![no_main]

use libfuzzer_sys::fuzz_target;
use radarflow_proto::packet::Tunnels;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(datagram) = radarflow_proto::sflow::Datagram::new(bytes) {
        // A sample has eight bytes at least.
        assert!(datagram.decode(Tunnels::ALL, &mut |_| {}).flows as usize * 8 <= bytes.len());
    }
    radarflow_proto::packet::ethernet(bytes, Tunnels::ALL, &mut Default::default());
    radarflow_proto::packet::ip(bytes, Tunnels::ALL, &mut Default::default());
});

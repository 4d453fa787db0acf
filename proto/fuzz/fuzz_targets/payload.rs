//! JSON payloads of agents.
#![no_main]

use libfuzzer_sys::fuzz_target;
use radarflow_proto::payload::{AgentPush, DeviceUpdate, IcmpResults, Sweep, instant_us};

fuzz_target!(|bytes: &[u8]| {
    let _ = serde_json::from_slice::<DeviceUpdate>(bytes);
    let _ = serde_json::from_slice::<AgentPush>(bytes);
    if let Ok(sweep) = serde_json::from_slice::<Sweep>(bytes) {
        let _ = instant_us(&sweep.last_sweep);
    }
    if let Ok(results) = serde_json::from_slice::<IcmpResults>(bytes) {
        results.results.iter().for_each(|r| drop(instant_us(&r.timestamp)));
    }
});

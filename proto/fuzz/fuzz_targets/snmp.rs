//! Notifications; and no community is left in what is kept.
#![no_main]

use libfuzzer_sys::fuzz_target;
use radarflow_proto::snmp;

fuzz_target!(|bytes: &[u8]| {
    let _ = snmp::parse(bytes);
    let _ = snmp::inform_response(bytes);
    if let Ok(kept) = snmp::redact(bytes, b"key") {
        // What is kept is a message again, with the same content.
        let (before, after) = (snmp::parse(bytes), snmp::parse(&kept));
        // Nobody writes what we keep of v3 but us.
        let own = matches!(&before, Ok(trap) if trap.version == 3);
        assert_eq!(before.is_ok() && !own, after.is_ok());
    }
});

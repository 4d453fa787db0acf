//! Messages of SNMPv3, of somebody who knows no password and of somebody who needs none; what is kept of them reads back.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use radarflow_proto::snmp::usm::{Engine, Received, User, UserConfig, Usm};
use radarflow_proto::snmp::{self, SnmpError};

static USM: LazyLock<Usm> = LazyLock::new(|| {
    let secret = UserConfig {
        name: "noc",
        engine: None,
        auth: Some(("sha256", "maplesyrup")),
        privacy: Some(("aes128", "maplesyrup")),
    };
    let open = UserConfig { name: "open", ..UserConfig::default() };
    let users = [secret, open].iter().map(|user| User::new(user).unwrap()).collect();
    Usm::new(Arc::new(Engine::new(vec![0x80, 0, 0x7e, 0xd9, 5, 1, 2, 3], 5, 1)), users)
});

fuzz_target!(|bytes: &[u8]| {
    match USM.receive(bytes, 10) {
        Received::Notification { kept, .. } => {
            if let Ok(trap) = snmp::parse(&kept) {
                assert_eq!(trap.said_by.map(|by| by.user).as_deref(), Some("open"));
            }
        }
        Received::Refused { kept, report } => {
            assert!(matches!(snmp::parse(&kept), Err(SnmpError::Refused(_))));
            assert_eq!(snmp::as_it_came(&kept), bytes);
            assert!(report.is_none_or(|report| report.len() < 256));
        }
        Received::Question { report } => assert!(report.len() < 256),
    }
});

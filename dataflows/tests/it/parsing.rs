//! Parsing rules on messages: from the epoch on that states them, in the version that stands then.

use radarflow_dataflows::worker::Start;
use radarflow_proto::fact::Fact;
use radarflow_proto::frame::Kind;
use radarflow_proto::rows::Log;
use serde_json::{Value, json};

use crate::harness::*;
use crate::resources::{command, gone, put};

fn line(tenant: &'static str, peer: &'static str, program: &str, body: &str) -> Input {
    let body = format!("<14>1 - host {program} - - - {body}").into_bytes().into();
    Input { kind: Kind::Syslog, tenant, partition: "default".into(), peer: Some(peer), body }
}

fn failed(client: &str) -> Input {
    line("t", "10.0.0.1:514", "sshd", &format!("Failed password for root from {client} port 22"))
}

fn rule(pattern: &str) -> Value {
    json!({"programs": ["sshd"], "pattern": pattern, "severity": "warning", "body": "{user} from {client} failed"})
}

const PATTERN: &str = "^Failed password for %{NOTSPACE:user} from %{IP:client}";

#[test]
fn messages_are_read_by_the_rules_of_their_epoch() {
    for workers in [1, 3] {
        let mut run = Run::new(workers);
        run.tick(vec![failed("192.0.2.1")]);
        // What an epoch states counts for its messages, wherever it stands.
        run.tick(vec![failed("192.0.2.2"), command("t", "1", None, vec![put("parsing_rules", "ssh", rule(PATTERN))])]);
        run.tick(vec![
            failed("192.0.2.3"),
            line("t", "10.0.0.1:514", "cron", "Failed password for root from 192.0.2.4"),
            line("u", "10.0.0.1:514", "sshd", "Failed password for root from 192.0.2.5"),
            line("t", "10.0.0.1:514", "sshd", "Accepted"),
        ]);
        // It is the same after a restart, on another number of workers.
        run.tick(vec![fact(&Fact::Snapshot)]);
        let start = Start { epoch: run.epoch, gap_ms: 0, state: run.snapshot.clone(), ..Default::default() };
        let mut again = Run::from(4 - workers, start, run.clock_ms);
        again.tick(vec![failed("192.0.2.6")]);
        let other =
            put("parsing_rules", "ssh", rule(&PATTERN.replace("%{IP:client}", "%{IP:client} port %{INT:port}")));
        again.tick(vec![failed("192.0.2.7"), command("t", "2", None, vec![other])]);
        again.tick(vec![failed("192.0.2.8"), command("t", "3", None, vec![gone("parsing_rules", "ssh")])]);

        let mut rows: Vec<Log> = run.rows::<Log>().into_iter().chain(again.rows::<Log>()).collect();
        rows.sort_by_key(|row| row.row_id);
        let read = |row: &Log| {
            let version = row.parsed_by.as_deref().and_then(|by| by.split_once('@')).map(|(name, _)| name.to_owned());
            (version, row.attributes.0.get("client").cloned(), row.attributes.0.contains_key("port"))
        };
        let ssh = |client: &str, port| (Some("ssh".to_owned()), Some(client.to_owned()), port);
        let none = (None, None, false);
        let expected = [
            none.clone(),
            ssh("192.0.2.2", false),
            ssh("192.0.2.3", false),
            none.clone(),
            none.clone(),
            none.clone(),
            ssh("192.0.2.6", false),
            ssh("192.0.2.7", true),
            none,
        ];
        assert_eq!(rows.iter().map(read).collect::<Vec<_>>(), expected, "{workers} workers");
        let parsed = &rows[1];
        assert_eq!((parsed.body.as_str(), parsed.severity.as_deref()), ("root from 192.0.2.2 failed", Some("warning")));
        let came = parsed.raw.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
        assert!(came.contains("Failed password for root from 192.0.2.2 port 22"), "{came}");
        assert_ne!(rows[2].parsed_by, rows[7].parsed_by, "another version");
    }
}

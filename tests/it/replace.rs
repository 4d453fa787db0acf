//! A ServiceRadar is replaced: its inventory is taken over from its Postgres, and every name it gave keeps working.

use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};

use crate::server::Home;

#[tokio::test]
async fn every_name_of_a_serviceradar_keeps_working() {
    let url = std::env::var("RADARFLOW_TEST_POSTGRES").expect("eval \"$(deploy/services.sh up)\" names it");
    let schema = format!("sr_{}", std::process::id());
    let mut db = PgConnection::connect(&url).await.unwrap();
    let script = format!(
        "CREATE SCHEMA {schema}; SET search_path TO {schema};
         CREATE TABLE ocsf_devices (uid text PRIMARY KEY, type_id int, type text, hostname text, name text, ip text, mac text,
             vendor_name text, model text, os jsonb, agent_id text, gateway_id text, discovery_sources text[],
             is_available boolean, first_seen_time timestamptz, last_seen_time timestamptz, metadata jsonb);
         CREATE TABLE device_identifiers (id bigserial, device_id text, identifier_type text, identifier_value text,
             partition text, confidence text, source text);
         CREATE TABLE merge_audit (event_id uuid, from_device_id text, to_device_id text, reason text);
         CREATE TABLE device_alias_states (device_id text, partition text, alias_type text, alias_value text, state text);
         INSERT INTO ocsf_devices VALUES
             ('sr:a', 12, 'Router', 'core-1', NULL, '10.40.0.1', '0C:EA:14:40:00:01', 'Cisco', 'ASR', '{{\"name\": \"IOS XE\"}}',
              'agent-dusk', NULL, '{{armis,netbox}}', true, now(), '2024-01-02T03:04:05.123456Z', '{{\"armis_device_id\": \"4001\"}}'),
             ('sr:b', 0, NULL, 'only-mac', NULL, '10.40.0.2', '0C:EA:14:40:00:02', NULL, NULL, NULL,
              'agent-dusk', NULL, '{{mapper}}', NULL, now(), now(), '{{}}'),
             ('sr:c', 0, NULL, NULL, NULL, '10.40.0.3', NULL, NULL, NULL, NULL, NULL, NULL, '{{sweep}}', NULL, now(), now(), '{{}}');
         INSERT INTO device_identifiers (device_id, identifier_type, identifier_value, partition) VALUES
             ('sr:a', 'armis_device_id', '4001', 'default'), ('sr:a', 'netbox_device_id', '77', 'default'),
             ('sr:a', 'mac', '0CEA14400001', 'default'), ('sr:b', 'mac', '0CEA14400002', 'default'),
             ('sr:c', 'ip', '10.40.0.3', 'default'), ('sr:old', 'mac', '0CEA144000AA', 'default');
         INSERT INTO merge_audit VALUES (gen_random_uuid(), 'sr:older', 'sr:old', 'mac'), (gen_random_uuid(), 'sr:old', 'sr:a', 'mac');
         INSERT INTO device_alias_states VALUES ('sr:b', 'default', 'ip', '10.40.9.9', 'confirmed');"
    );
    db.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(script))).await.unwrap();

    let mut home = Home::new("");
    let server = home.start();
    let import = async || {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_radarflow"));
        let joined = if url.contains('?') { '&' } else { '?' };
        let from = format!("{url}{joined}options=-csearch_path%3D{schema}");
        command.args(["import-serviceradar", "--from", &from, "--url", &server.http, "--token", &server.token]);
        let done = command.output().await.unwrap();
        (done.status.success(), String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned())
    };
    let (ok, said) = import().await;
    assert!(ok && said.contains("1 devices of armis/main, 5 names"), "{said}");
    let rows = server.until("in:devices hostname:core-1", |rows| rows.len() == 1).await;
    assert_eq!((&rows[0]["os"], &rows[0]["vendor_name"]), (&json!("IOS XE"), &json!("Cisco")));
    assert_eq!(rows[0]["last_seen_time"], "2024-01-02T03:04:05.123456Z");
    assert_eq!(rows[0]["agent_id"], json!(null), "who reported a device is not on it");
    let core = rows[0]["uid"].clone();
    let get = async |uid: &str| {
        server.ask(reqwest::Method::GET, &format!("/api/devices/{uid}"), &server.token, &json!(null)).await
    };
    // Its name, and those of what was merged into it, at one hop.
    for old in ["sr:a", "sr:old", "sr:older"] {
        let (_, found) = get(old).await;
        assert_eq!((&found["uid"], &found["device"]["hostname"]), (&core, &json!("core-1")), "{old}");
        assert_eq!(found["device"]["last_seen_time"], "2024-01-02T03:04:05.123456Z");
    }
    // What comes back by itself: until then its names say so.
    let (status, said) = get("sr:b").await;
    assert_eq!((status, &said["code"]), (410, &json!("gone")));
    assert_eq!(get("sr:nobody").await.0, 404);
    let poll = json!([{"source": "mapper", "ip": "10.40.0.2", "mac": "0C:EA:14:40:00:02", "timestamp": 1_700_000_000,
                       "metadata": {"identity_mac_kind": "primary"}}]);
    server.push("scanner", "mapper", &poll.to_string()).await.unwrap();
    let hosts = json!({"hosts": [{"host": "10.40.0.3", "available": true, "last_seen": 1_700_000_000}]});
    server.push("scanner", "sweep", &hosts.to_string()).await.unwrap();
    server.count("devices", 3).await;
    let by_mac = server.rows("in:devices ip:10.40.0.2").await;
    assert_eq!(get("sr:b").await.1["uid"], by_mac[0]["uid"]);
    let swept = server.rows("in:devices ip:10.40.0.3").await;
    assert_eq!(get("sr:c").await.1["uid"], swept[0]["uid"]);
    // Explanations, steps and links take them.
    let (status, why) =
        server.ask(reqwest::Method::GET, "/api/devices/sr:older/explain", &server.token, &json!(null)).await;
    assert_eq!((status, &why["uid"]), (200, &core));
    assert_eq!(server.post("/api/devices/sr:old/manage", &server.token, &json!({"reason": "ours"})).await.0, 200);

    // Taken over again, nothing changes.
    let epoch = server.rows("in:devices hostname:core-1").await[0]["epoch"].clone();
    let (ok, said) = import().await;
    assert!(ok, "{said}");
    assert_eq!(server.rows("in:devices hostname:core-1").await[0]["epoch"], epoch);
    server.stop();
    db.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE")))).await.unwrap();
}

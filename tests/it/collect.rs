//! What is known beside what senders say, and what of theirs is too much.

use std::path::Path;
use std::process::{Command, Stdio};

use radarflow_network::addresses::{Value, file};
use serde_json::json;

use crate::pipeline::netflow_v5;
use crate::server::{Home, notification};

/// A file in which the flows' sources are in a country.
fn places(path: &Path, country: &str) {
    let text = |text: &str| Value::Text(text.to_owned());
    let of = |code: &str, city: &str| {
        let names = Value::map([("names", Value::map([("en", text(city))]))]);
        Value::map([("country", Value::map([("iso_code", text(code))])), ("city", names)])
    };
    std::fs::write(path, file(&[("10.0.0.0/24", of(country, "Somewhere")), ("192.0.2.0/24", of("ZZ", "Nowhere"))]))
        .unwrap();
}

#[tokio::test]
async fn flows_are_told_where_they_are_by_the_file_of_their_time() {
    let mut home = Home::new("");
    let own = home.dir.path().join("places.mmdb");
    places(&own, "DE");
    let table = "[[enrichment.networks]]\nprefix = \"10.0.0.7\"\ncity = \"Bonn\"\n";
    home.config.push_str(&format!("[enrichment]\naddress_files = [\"places.mmdb\"]\n{table}"));
    let mut server = home.start();
    server.send("netflow", &[netflow_v5(0)]);
    server.count("flows", 30).await;
    let by = "in:flows stats:\"count() as n by src_country, src_city, dst_country\" sort:n:desc";
    let of = |country: &str| {
        [
            json!({"src_country": country, "src_city": "Somewhere", "dst_country": null, "n": 29}),
            json!({"src_country": country, "src_city": "Bonn", "dst_country": null, "n": 1}),
        ]
    };
    assert_eq!(server.rows(by).await, of("DE"));
    let told = server.rows("in:flows src_endpoint_ip:10.0.0.9 fields:enriched_by").await;
    assert_eq!(told, [json!({"enriched_by": {"src_place": "places.mmdb"}})]);

    // Another file of that name; and one that is none changes nothing.
    places(&own, "FR");
    server.hang_up();
    assert!(server.printed("  of flows: ").unwrap().ends_with("places.mmdb"));
    server.send("netflow", &[netflow_v5(1)]);
    server.count("flows", 60).await;
    assert_eq!(server.rows(&by.replace("in:flows", "in:flows src_country:FR")).await, of("FR"));
    std::fs::write(&own, "no such file").unwrap();
    server.hang_up();
    let unread = "in:alerts rule:enrichment-file-unread";
    server.until(unread, |rows| rows.len() == 1 && rows[0]["severity"] == "warning").await;
    server.send("netflow", &[netflow_v5(2)]);
    server.count("flows", 90).await;

    // Nor does one that is missing keep the server from starting.
    server.kill();
    std::fs::remove_file(&own).unwrap();
    let server = home.start();
    server.send("netflow", &[netflow_v5(3)]);
    server.count("flows", 120).await;
    let french = server.rows("in:flows src_country:FR stats:\"count() as n\"").await;
    assert_eq!(french, [json!({"n": 90})]);

    // What is read again of the ledger says what it said, though the file is not there any more.
    places(&own, "IT");
    server.hang_up();
    server.until(&format!("{unread} status:resolved"), |rows| rows.len() == 1).await;
    server.kill();
    let server = home.start();
    let countries = "in:flows stats:\"count() as n by src_country\" sort:src_country:asc";
    assert_eq!(
        server.rows(countries).await,
        [json!({"src_country": "DE", "n": 30}), json!({"src_country": "FR", "n": 90})]
    );
    server.send("netflow", &[netflow_v5(4)]);
    server.count("flows", 150).await;
    assert_eq!(server.rows("in:flows src_country:IT stats:\"count() as n\"").await, [json!({"n": 30})]);
    server.stop();
    let check = Command::new(env!("CARGO_BIN_EXE_radarflow"))
        .args(["check-config", "--offline", "--config"])
        .arg(home.dir.path().join("radarflow.toml"))
        .output()
        .unwrap();
    assert!(check.status.success(), "{check:?}");
}

#[tokio::test]
async fn what_a_sender_sends_beyond_its_rate_is_shed_and_nobody_elses_is() {
    let mut home = Home::new("");
    home.config = home.config.replacen("[[traps]]\n", "[[traps]]\nsender_rate = 20\n", 1);
    let server = home.start();
    let from = |ip: &str| std::net::UdpSocket::bind((ip, 0)).unwrap();
    let (loud, quiet) = (from("127.0.0.2"), from("127.0.0.3"));
    let to = server.port("traps");
    for n in 0..500 {
        loud.send_to(&notification(false, 1, n), to).unwrap();
        if n % 50 == 0 {
            quiet.send_to(&notification(false, 1, n), to).unwrap();
        }
    }
    let balanced = |row: &serde_json::Value| {
        let n = |of: &str| row[of].as_i64().unwrap();
        n("received") == n("stored") + n("rejected") + n("shed")
    };
    let of = |ip: &str| format!("in:sources exporter:{ip} fields:received,stored,rejected,shed");
    let rows = server.until(&of("127.0.0.2"), |rows| rows.len() == 1 && rows[0]["received"] == 500).await;
    let stored = rows[0]["stored"].as_i64().unwrap();
    assert!(balanced(&rows[0]) && (20..400).contains(&stored), "{rows:?}");
    let rows = server.until(&of("127.0.0.3"), |rows| rows.len() == 1 && rows[0]["received"] == 10).await;
    assert_eq!(rows[0]["stored"], 10, "{rows:?}");
    server.count("traps", stored as u64 + 10).await;
    server.stop();
}

#[tokio::test]
async fn gelf_comes_whole_in_chunks_and_compressed() {
    let mut home = Home::new("");
    let server = home.start();
    let message = |n: u32, padding: usize| {
        json!({"version": "1.1", "host": "app-1", "short_message": format!("message {n}"), "level": 4,
            "_padding": "x".repeat(padding)})
        .to_string()
        .into_bytes()
    };
    let chunks = |id: u64, whole: &[u8]| -> Vec<Vec<u8>> {
        let parts: Vec<&[u8]> = whole.chunks(1000).collect();
        let head = |n: usize| [&[0x1e, 0x0f][..], &id.to_be_bytes(), &[n as u8, parts.len() as u8]].concat();
        parts.iter().enumerate().map(|(n, part)| [&head(n)[..], part].concat()).collect()
    };
    // As python's own zlib and gzip compress them.
    let compressed = |how: &str, whole: &[u8]| -> Vec<u8> {
        let code = format!("import sys, {how}; sys.stdout.buffer.write({how}.compress(sys.stdin.buffer.read()))");
        let mut python = Command::new("python3");
        let python = python.args(["-c", &code]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = python.spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), whole).unwrap();
        child.wait_with_output().unwrap().stdout
    };
    let mut late = chunks(2, &message(2, 5000));
    late.reverse();
    let noise: String =
        (0..4000u32).map(|n| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 24) as u8 % 26)).collect();
    let random = json!({"version": "1.1", "host": "app-1", "short_message": "message 4", "_noise": noise}).to_string();
    let datagrams = [
        vec![message(1, 0)],
        late,
        vec![compressed("zlib", &message(3, 100)), b"x^2 is a line like any other".to_vec()],
        chunks(4, &compressed("gzip", random.as_bytes())),
        // One chunk of it never comes.
        chunks(5, &message(5, 5000)).split_off(1),
    ]
    .concat();
    server.send("syslog", &datagrams);
    server.count("logs", 5).await;
    let found = server.rows("in:logs parse_status:gelf sort:body:asc fields:body,hostname").await;
    let bodies: Vec<&str> = found.iter().map(|row| row["body"].as_str().unwrap()).collect();
    assert_eq!(bodies, ["message 1", "message 2", "message 3", "message 4"]);
    let of = "in:sources source:syslog* fields:received,stored,rejected,shed";
    let balance = server.until(of, |rows| rows.iter().any(|row| row["shed"] == 1)).await;
    assert!(balance.iter().any(|row| row["received"] == 6 && row["stored"] == 5), "{balance:?}");
    server.stop();
}

#[tokio::test]
async fn fields_are_read_out_of_messages_by_rules_that_are_tried_before() {
    let mut home = Home::new("");
    let server = home.start();
    let line = |program: &str, body: &str| format!("<14>1 - host {program} - - - {body}").into_bytes();
    let failed = |client: &str| line("sshd", &format!("Failed password for root from {client} port 22 ssh2"));
    server.send("syslog", &[failed("192.0.2.1"), line("sshd", "Accepted publickey"), line("cron", "x")]);
    server.count("logs", 3).await;
    let rule = json!({"programs": ["sshd"], "severity": "warning",
        "pattern": "^Failed password for %{NOTSPACE:user} from %{IP:client} port %{INT:port}"});
    let (status, tried) = server.post("/api/parsing-rules/preview", &server.token, &json!({"rule": rule})).await;
    assert_eq!(status, 200, "{tried}");
    let counts = ["lines", "about", "matched"].map(|name| tried[name].as_u64().unwrap());
    assert_eq!((counts, &tried["found"][0]["attributes"]["client"]), ([3, 2, 1], &json!("192.0.2.1")), "{tried}");
    assert_eq!(tried["unmatched"], json!(["Accepted publickey"]));
    let wrong = json!({"rule": {"pattern": "%{NOTHING:x}"}});
    let (status, told) = server.post("/api/parsing-rules/preview", &server.token, &wrong).await;
    assert!(status == 400 && told.to_string().contains("there is no kind `NOTHING`"), "{told}");

    let body = json!({"data": {"type": "parsing_rules", "id": "ssh-failed", "attributes": rule}});
    let (status, made) = server.post("/api/v2/parsing_rules", &server.token, &body).await;
    assert_eq!(status, 201, "{made}");
    server.send("syslog", &[failed("192.0.2.2"), failed("192.0.2.3")]);
    server.count("logs", 5).await;
    let of = "in:logs parsed_by:ssh-failed* severity:warning stats:\"count() as n by attributes.client\" sort:n:asc";
    let mut clients = server.rows(of).await.iter().map(|row| row["attributes.client"].clone()).collect::<Vec<_>>();
    clients.sort_by_key(ToString::to_string);
    assert_eq!(clients, ["192.0.2.2", "192.0.2.3"], "what came before is as it was");
    server.stop();
}

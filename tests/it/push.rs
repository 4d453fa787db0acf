//! Inventories of any shape are pushed over HTTP or from a file, as runs that are taken whole or not at all; and rules of
//! files tell what the devices are.

use serde_json::{Value, json};

use crate::server::{Home, Server};

const MAPPING: &str = "id: Asset Tag\nip: [Address]\nmac: MAC\nhostname: Name\ntime: Seen\ntime_format: \"%d.%m.%Y\"\n\
                       deleted: {from: State, is: [scrapped]}\nattributes: {model: Model}\nmetadata: {owner: Owner}\n";

fn csv(rows: &[(u32, &str)]) -> String {
    let row = |(n, state): &(u32, &str)| {
        format!("{n};10.20.0.{n};50-A6-D8-00-00-{n:02X};cmdb-{n};0{}.03.2024;{state};M{n};ops\n", n % 9 + 1)
    };
    format!("Asset Tag;Address;MAC;Name;Seen;State;Model;Owner\n{}", rows.iter().map(row).collect::<String>())
}

async fn post(server: &Server, path: &str, token: &str, kind: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
    let url = format!("{}{path}", server.http);
    let request = reqwest::Client::new().post(url).bearer_auth(token).header("content-type", kind).body(body);
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn import(server: &Server, args: &[&str]) -> (bool, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_radarflow"));
    let url = &server.http;
    let done = command.arg("import").args(args).args(["--url", url, "--token", &server.token]).output().await.unwrap();
    let said = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8_lossy(&said).into_owned())
}

async fn devices(server: &Server, n: usize) -> Vec<Value> {
    server.until("in:devices discovery_sources:integration sort:hostname:asc", |rows| rows.len() == n).await
}

#[tokio::test]
async fn inventories_of_any_shape_are_pushed() {
    let mut home = Home::new("");
    let mapping = home.dir.path().join("cmdb.yaml");
    std::fs::write(&mapping, MAPPING).unwrap();
    home.config.push_str(&format!("[mappings]\ncmdb = {mapping:?}\n"));
    let server = home.start();
    let token = server.token.clone();
    let path = "/api/inventories/cmdb/main?mapping=cmdb";

    // CSV, as a spreadsheet writes it.
    let all: Vec<(u32, &str)> = (1..=5).map(|n| (n, "live")).collect();
    let (status, said) = post(&server, path, &token, "text/csv", csv(&all)).await;
    assert_eq!((status, &said["items"], &said["complete"]), (200, &json!(5), &json!(false)), "{said}");
    let rows = devices(&server, 5).await;
    let one = &rows[0];
    assert_eq!((&one["hostname"], &one["ip"], &one["model"]), (&json!("cmdb-1"), &json!("10.20.0.1"), &json!("M1")));
    assert_eq!((&one["metadata"]["owner"], &one["last_seen_time"]), (&json!("ops"), &json!("2024-03-02T00:00:00Z")));
    // Nobody says who made it; its MAC does.
    assert_eq!((&one["vendor_name"], &one["enriched_by"]["vendor_name"]), (&json!("Apple, Inc."), &json!("oui")));
    let ids = server.rows("in:identities identifier_type:integration identifier_value:1").await;
    assert_eq!(ids[0]["device_uid"], one["uid"]);

    // A part withdraws nothing; a complete one what it lacks; what says that it is gone is gone.
    post(&server, path, &token, "text/csv", csv(&[(2, "scrapped")])).await;
    devices(&server, 4).await;
    let (status, said) =
        post(&server, &format!("{path}&complete=true&run=r7"), &token, "text/csv", csv(&all[2..])).await;
    assert_eq!((status, &said["run"]), (200, &json!("r7")));
    devices(&server, 3).await;

    // A run with a mistake is not taken at all; whoever sent it is told where the mistake is.
    let mut lines: Vec<String> =
        (10..3000).map(|n| json!({"metadata": {"integration_id": n.to_string()}}).to_string()).collect();
    lines.push("{oops".to_owned());
    let (status, said) =
        post(&server, "/api/inventories/cmdb/main", &token, "application/x-ndjson", lines.join("\n")).await;
    assert_eq!(status, 400);
    assert!(said["detail"].as_str().unwrap().starts_with("line 2991 is no JSON"), "{said}");
    let broken = futures::stream::iter([Ok(lines[0].clone() + "\n"), Err(std::io::Error::other("gone"))]);
    let url = format!("{}/api/inventories/cmdb/main", server.http);
    let request = reqwest::Client::new().post(url).bearer_auth(&token).header("content-type", "application/x-ndjson");
    assert!(request.body(reqwest::Body::wrap_stream(broken)).send().await.is_err());
    for (path, kind, body, expected) in [
        ("/api/inventories/mapper/x", "application/json", "[]", "bad_source"),
        ("/api/inventories/cmdb/main", "text/csv", "a\n1\n", "no_mapping"),
        ("/api/inventories/cmdb/main?mapping=x", "text/csv", "a\n1\n", "no_mapping"),
        ("/api/inventories/cmdb/main?run=a/b", "application/json", "[]", "bad_run"),
        ("/api/inventories/cmdb/main", "text/html", "", "unsupported"),
        ("/api/inventories/cmdb/main", "application/json", "{}", "unreadable"),
        ("/api/inventories/cmdb/main", "application/json", "[7]", "unreadable"),
        ("/api/inventories/cmdb/main", "application/json", "[[]]", "unreadable"),
        ("/api/inventories/cmdb/main", "application/x-ndjson", "[]", "unreadable"),
    ] {
        let (_, said) = post(&server, path, &token, kind, body).await;
        assert_eq!(said["code"], expected, "{path} {said}");
    }

    // An item without any identity is rejected alone, by name.
    let items = json!([{"metadata": {"integration_id": "77"}, "hostname": "cmdb-77"}, {"metadata": {}}]);
    post(&server, "/api/inventories/cmdb/main", &token, "application/json", items.to_string()).await;
    devices(&server, 4).await;
    let rejects = server.until("in:rejects", |rows| !rows.is_empty()).await;
    assert!(rejects[0]["reason"].as_str().unwrap().contains("integration_id, serial, MAC"), "{rejects:?}");

    // A token of one site speaks of that site, whatever items say.
    let (_, made) =
        server.post("/api/tokens", &token, &json!({"name": "b", "role": "operator", "partitions": ["site-b"]})).await;
    let bound = made["token"].as_str().unwrap().to_owned();
    let item =
        json!([{"metadata": {"integration_id": "88"}, "hostname": "cmdb-88", "partition": "elsewhere"}]).to_string();
    assert_eq!(post(&server, "/api/inventories/cmdb/b", &bound, "application/json", item.clone()).await.0, 200);
    let there = server.until("in:devices hostname:cmdb-88", |rows| rows.len() == 1).await;
    assert_eq!(there[0]["partition"], "site-b");
    let refused = post(&server, "/api/inventories/cmdb/b?complete=true", &bound, "application/json", item).await;
    assert_eq!(refused.0, 403);

    // A file, from the command line; of another type with the same id: another device.
    let file = home.dir.path().join("assets.csv");
    std::fs::write(&file, csv(&[(3, "live"), (9, "live")])).unwrap();
    let file = file.to_str().unwrap();
    let (ok, said) = import(&server, &[file, "--source", "erp/main", "--mapping", mapping.to_str().unwrap()]).await;
    assert!(ok && said.starts_with("2 items: run ") && said.contains("is applied"), "{said}");
    server.until("in:identities identifier_value:3 identifier_type:integration", |rows| rows.len() == 2).await;
    let (ok, said) = import(&server, &[file, "--source", "erp/main"]).await;
    assert!(!ok && said.contains("--mapping"), "{said}");
    server.stop();
}

#[tokio::test]
async fn rules_of_files_tell_what_devices_are() {
    let mut home = Home::new("");
    let folder = home.dir.path().join("rules");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("ours.yaml");
    let rules = |kind: &str| {
        format!(
            "rules:\n  - rule_id: ours\n    priority: 500\n    when: {{sys_descr: /acme.*9000/}}\n    set: {{type: {kind}}}\n\
             \x20 - rule_id: bad\n    when: {{sys_descr: '/(/'}}\n    set: {{type: x}}\n"
        )
    };
    std::fs::write(&file, rules("oven")).unwrap();
    home.config.push_str(&format!("[enrichment]\nrules = [{folder:?}]\n"));
    let server = home.start();
    let poll = |n: u32, descr: &str| {
        json!({"source": "mapper", "ip": format!("10.30.0.{n}"), "timestamp": 1_700_000_000,
               "metadata": {"sys_object_id": ".1.3.6.1.4.1.9.1.1", "sys_descr": descr}})
    };
    let polls = json!([poll(1, "ACME model 9000"), poll(2, "Cisco NX-OS(tm) n9000")]);
    server.push("scanner", "mapper", &polls.to_string()).await.unwrap();
    let rows = server.until("in:devices discovery_sources:mapper sort:ip:asc", |rows| rows.len() == 2).await;
    let is = |row: &Value| (row["type"].clone(), row["vendor_name"].clone(), row["enriched_by"]["type"].clone());
    assert_eq!(is(&rows[0]), (json!("oven"), json!("Cisco"), json!("ours")));
    assert_eq!(is(&rows[1]), (json!("switch"), json!("Cisco"), json!("cisco-nx-os")));
    let alert = server.until("in:alerts rule:enrichment-rules-invalid", |rows| rows.len() == 1).await;
    assert!(alert[0]["description"].as_str().unwrap().contains("ours.yaml:6: rule bad"), "{alert:?}");
    server.stop();

    // The file is edited and mended: at the next start every device is what it says now, and the alert is over.
    std::fs::write(&file, rules("kiln").replace("'/(/'", "fine")).unwrap();
    let server = home.start();
    server.until("in:devices type:kiln enriched_by.type:ours", |rows| rows.len() == 1).await;
    server.until("in:alerts rule:enrichment-rules-invalid status:resolved", |rows| rows.len() == 1).await;

    // While it runs, as soon as it is told: of the configuration what can be told again, too.
    std::fs::write(&file, rules("hearth").replace("'/(/'", "fine")).unwrap();
    let config = home.dir.path().join("radarflow.toml");
    let receiver = "[[receivers]]\nname = \"ops\"\nurl = \"http://127.0.0.1:9\"\nkind = \"alertmanager\"\n";
    std::fs::write(&config, format!("{}{receiver}", home.config)).unwrap();
    server.hang_up();
    server.until("in:devices type:hearth enriched_by.type:ours", |rows| rows.len() == 1).await;
    server.until("in:audit action:'receivers:put'", |rows| rows.len() == 1).await;
    // What is wrong changes nothing.
    std::fs::write(&file, rules("stove").replace("'/(/'", "fine")).unwrap();
    std::fs::write(&config, format!("{}nonsense = 1\n", home.config)).unwrap();
    server.hang_up();
    server.push("scanner", "mapper", &json!([poll(3, "ACME model 9000")]).to_string()).await.unwrap();
    server.until("in:devices type:hearth enriched_by.type:ours", |rows| rows.len() == 2).await;
    std::fs::write(&config, &home.config).unwrap();
    server.hang_up();
    server.until("in:devices type:stove enriched_by.type:ours", |rows| rows.len() == 2).await;
    server.until("in:audit action:'receivers:delete'", |rows| rows.len() == 1).await;
    server.stop();
}

#[tokio::test]
async fn a_plan_of_a_partial_source_tells_what_it_adds() {
    let mut home = Home::new("[[sources.partial]]\nname = \"cmdb/main\"\n");
    let server = home.start();
    let file = home.dir.path().join("devices.ndjson");
    let args = [file.to_str().unwrap(), "--source", "cmdb/main"];
    let planned = [&args[..], &["--plan"]].concat();
    let write = |day: u32, items: &[Value]| {
        let item = |(n, said): (usize, &Value)| {
            let mut item = said.clone();
            item["metadata"] = json!({"integration_id": n.to_string()});
            item["timestamp"] = json!(format!("2024-03-{day:02}T00:00:00Z"));
            item.to_string()
        };
        std::fs::write(&file, items.iter().enumerate().map(item).collect::<Vec<_>>().join("\n")).unwrap();
    };
    write(5, &[json!({"ip": "10.30.0.1", "hostname": "one"}), json!({"ip": "10.30.0.2", "hostname": "two"})]);
    assert!(import(&server, &args).await.0);
    devices(&server, 2).await;
    // The first says again a part of what it said, the second something else.
    write(6, &[json!({"ip": "10.30.0.1"}), json!({"hostname": "zwei"})]);
    let (_, said) = import(&server, &planned).await;
    assert!(said.contains("2 items: 0 new, 1 changed, 1 as they are, 0 gone"), "{said}");
    // What is older fills in what nobody said.
    write(1, &[json!({"hostname": "uno", "mac": "0CEA1432D278"}), json!({"hostname": "dos"})]);
    let (_, said) = import(&server, &planned).await;
    assert!(said.contains("2 items: 0 new, 1 changed, 1 as they are, 0 gone"), "{said}");
    let digest = said.trim().rsplit(' ').next().unwrap().to_owned();
    let path = format!("/api/plans/{digest}/apply");
    assert_eq!(server.post(&path, &server.token, &json!({})).await.0, 200);
    let rows = server.until("in:devices mac:0CEA1432D278", |rows| rows.len() == 1).await;
    assert_eq!(rows[0]["hostname"], "one");
    server.stop();
}

#[tokio::test]
async fn what_is_pushed_may_be_planned_first() {
    let mut home = Home::new("");
    let server = home.start();
    let file = home.dir.path().join("devices.ndjson");
    let write = |items: &[(u32, &str, u32)]| {
        let item = |(n, name, day): &(u32, &str, u32)| {
            let metadata = json!({"integration_id": n.to_string()});
            let timestamp = format!("2024-03-{day:02}T00:00:00Z");
            json!({"ip": format!("10.30.0.{n}"), "hostname": name, "metadata": metadata, "timestamp": timestamp})
                .to_string()
        };
        std::fs::write(&file, items.iter().map(item).collect::<Vec<_>>().join("\n")).unwrap();
    };
    let args = [file.to_str().unwrap(), "--source", "cmdb/main", "--complete"];
    let planned = [&args[..], &["--plan"]].concat();
    write(&[(1, "one", 1), (2, "two", 1)]);
    let (done, said) = import(&server, &planned).await;
    assert!(done && said.contains("2 items: 2 new"), "{said}");
    assert!(server.rows("in:devices").await.is_empty());
    assert!(import(&server, &args).await.0);
    devices(&server, 2).await;

    // Newer, older than what is known, another, and one that is not there any more.
    write(&[(1, "first", 2), (3, "three", 1)]);
    let (_, said) = import(&server, &planned).await;
    assert!(said.contains("1 new, 1 changed, 0 as they are, 1 gone"), "{said}");
    let old = said.trim().rsplit(' ').next().unwrap().to_owned();
    write(&[(1, "premier", 3), (2, "two", 1)]);
    assert!(import(&server, &args).await.0);
    server.until("in:devices hostname:premier", |rows| rows.len() == 1).await;
    // What it said is not what it would do now.
    let (status, said) = server.post(&format!("/api/plans/{old}/apply"), &server.token, &json!({})).await;
    assert_eq!((status, &said["code"]), (409, &json!("plan_outdated")), "{said}");
    let plan = &said["plan"];
    assert_eq!(
        [&plan["create"], &plan["update"], &plan["unchanged"], &plan["delete"]],
        [&json!(1), &json!(0), &json!(1), &json!(1)],
        "the first is older than what is known now: {plan}"
    );
    let path = format!("/api/plans/{}/apply", plan["digest"].as_str().unwrap());
    assert_eq!(server.post(&path, &server.token, &json!({})).await.0, 200);
    let rows = server.until("in:devices sort:hostname:asc", |rows| rows.iter().any(|r| r["hostname"] == "three")).await;
    let names: Vec<&Value> = rows.iter().map(|r| &r["hostname"]).collect();
    assert_eq!(names, [&json!("premier"), &json!("three")]);
    let audit = server.rows("in:audit action:(inventory_run,plan_applied) sort:epoch:asc").await;
    let acts: Vec<&Value> = audit.iter().map(|row| &row["action"]).collect();
    assert_eq!(acts, ["inventory_run", "inventory_run", "plan_applied"]);
    assert!(audit[2]["subject"].as_str().unwrap().starts_with("integration/cmdb.main/"), "{audit:?}");
    assert!(audit[2]["detail"].as_str().unwrap().contains(plan["digest"].as_str().unwrap()), "{audit:?}");
    server.stop();
}

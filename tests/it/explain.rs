//! Why a device is one, and why two are two, over HTTP and on the command line.

use serde_json::json;

use crate::server::{Home, armis, netbox};

#[tokio::test]
async fn identity_is_explained_with_witnesses() {
    let mut home = Home::new("");
    let server = home.start();
    let items = [armis(1, "10.1.0.1", 1), armis(2, "10.1.0.2", 2), netbox("9", "10.1.0.1", "host-1.example.net")];
    server.push("runner", "sync", &format!("[{}]", items.join(","))).await.unwrap();
    server.count("devices", 2).await;
    let admin = server.token.clone();
    let rows = server.rows("in:devices sort:hostname:asc").await;
    let uid = |n: usize| rows[n]["uid"].as_str().unwrap().to_owned();
    let get = async |path: &str, token: &str| server.ask(reqwest::Method::GET, path, token, &json!(null)).await;

    let (status, why) = get(&format!("/api/devices/{}/explain", uid(0)), &admin).await;
    assert_eq!((status, &why["uid"], why["records"].as_array().map(Vec::len)), (200, &json!(uid(0)), Some(2)), "{why}");
    assert_eq!(why["links"][0]["rule"], "cross_source");
    assert_eq!(why["links"][0]["witness"], "both claim 10.1.0.1 and are called host-1");
    assert_eq!((&why["addresses"][0]["ip"], &why["addresses"][0]["class"]), (&json!("10.1.0.1"), &json!("inventory")));
    assert_eq!(why["addresses"][0]["claimed_by"].as_array().map(Vec::len), Some(2));
    // The older name of the part that was found later leads here, and is explained like any other.
    let older = why["redirects"][0]["from_uid"].as_str().unwrap().to_owned();
    assert_eq!(get(&format!("/api/devices/{older}/explain"), &admin).await.1["uid"], json!(uid(0)));
    let (status, apart) = get(&format!("/api/devices/{older}/why-not/{}", uid(1)), &admin).await;
    assert_eq!((status, &apart["kept_apart_by"][0]["rule"]), (200, &json!("exclusive")));
    assert_eq!(get(&format!("/api/devices/{older}/why-not/{}", uid(0)), &admin).await.0, 409);
    assert_eq!(get("/api/devices/sr:nobody/explain", &admin).await.0, 404);

    // Nobody sees what is not theirs.
    let bound = json!({"name": "b", "role": "viewer", "partitions": ["elsewhere"]});
    let (_, made) = server.post("/api/tokens", &admin, &bound).await;
    assert_eq!(get(&format!("/api/devices/{}/explain", uid(0)), made["token"].as_str().unwrap()).await.0, 404);

    let command = async |args: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_radarflow"));
        command.args(args).env("RADARFLOW_URL", &server.http).env("RADARFLOW_TOKEN", &admin);
        let done = command.output().await.unwrap();
        (
            done.status.code(),
            format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr)),
        )
    };
    let (code, said) = command(&["explain", &uid(0)]).await;
    assert!(
        code == Some(0) && said.contains("cross_source: armis/") && said.contains("claimed by netbox/n1/9"),
        "{said}"
    );
    let (_, said) = command(&["explain", &uid(0), "--json"]).await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&said).unwrap()["named_by"], why["named_by"]);
    let (_, said) = command(&["why-not", &uid(0), &uid(1)]).await;
    assert!(said.contains("exclusive: one holds armis:1, the other armis:2"), "{said}");
    let (code, said) = command(&["explain", "sr:nobody"]).await;
    assert!(code != Some(0) && said.contains("there is no device sr:nobody"), "{said}");

    // What would be, were they one; and were what makes one of two not so. Nothing is applied.
    let changes =
        json!({"changes": [{"link": {"kind": "must", "a": {"type": "armis", "value": "1"}, "b": {"uid": uid(1)}}}]});
    let (status, what) = server.post("/api/identity/what-if", &admin, &changes).await;
    assert_eq!(status, 200, "{what}");
    assert_eq!(what["merged"].as_array().map(Vec::len), Some(1), "{what}");
    let of: Vec<_> = what["merged"][0]["of"].as_array().unwrap().clone();
    assert!(of.contains(&json!(uid(0))) && of.contains(&json!(uid(1))), "{what}");
    assert_eq!(what["records_looked_at"], 3);
    let netbox = format!("netbox/n1/{}", 9);
    let changes = json!({"changes": [{"record": {"device": uid(0), "record": netbox, "hostname": "other"}}]});
    let (_, what) = server.post("/api/identity/what-if", &admin, &changes).await;
    assert_eq!(
        (&what["split"][0]["of"], what["split"][0]["into"].as_array().map(Vec::len)),
        (&json!(uid(0)), Some(2)),
        "{what}"
    );
    // The name stays with what was seen first.
    assert_eq!((&what["moved"][0]["record"], &what["moved"][0]["from"]), (&json!("armis/a1/1"), &json!(uid(0))));
    assert_eq!(server.rows("in:devices").await.len(), 2, "nothing was applied");
    let (code, said) = command(&["what-if", "--policy", "off"]).await;
    assert!(code == Some(0) && said.contains(&format!("split    {}", uid(0))), "{said}");
    let (_, said) = command(&["what-if", "--cannot", "armis:1", "netbox:9"]).await;
    assert!(said.contains("split") && said.contains("2 records were looked at"), "{said}");
    let (_, said) = command(&["what-if", "--gone", &uid(1), "armis/a1/2"]).await;
    assert!(said.contains("gone     sr:"), "{said}");
    let (code, said) = command(&["what-if", "--gone", &uid(1), "armis/a1/77"]).await;
    assert!(code != Some(0) && said.contains("has no record armis/a1/77"), "{said}");
    // A record of a site that the asker may not see is not reached by its device's name.
    let bound = json!({"name": "c", "role": "viewer", "partitions": ["elsewhere"]});
    let (_, made) = server.post("/api/tokens", &admin, &bound).await;
    let gone = json!({"partition": "elsewhere", "changes": [{"gone": {"device": uid(1), "record": "armis/a1/2"}}]});
    let (status, said) = server.post("/api/identity/what-if", made["token"].as_str().unwrap(), &gone).await;
    assert_eq!(status, 404, "{said}");
    let (code, said) = command(&["what-if"]).await;
    assert!(code != Some(0) && said.contains("nothing is supposed"), "{said}");
    server.stop();
}

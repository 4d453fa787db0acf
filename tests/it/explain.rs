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
    server.stop();
}

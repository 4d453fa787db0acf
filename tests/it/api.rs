//! The API as other tools use it: its own description fuzzes it, ADBC reads it, exports are whole, WebSockets follow, and
//! what held before is found again after a restart.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::server::{Home, Server, armis};
use crate::tools::python;

/// More than a page.
const MANY: usize = 12_000;

async fn export(server: &Server, body: &Value) -> (u16, reqwest::header::HeaderMap, Vec<u8>) {
    let path = if body.get("sql").is_some() { "sql" } else { "query" };
    let request = reqwest::Client::new().post(format!("{}/api/{path}", server.http)).bearer_auth(&server.token);
    let response = request.json(body).send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    (status, headers, response.bytes().await.unwrap().to_vec())
}

async fn fill(server: &Server) {
    let item = |n: usize| {
        json!({"ip": format!("10.{}.{}.{}", 20 + n / 60_000, n / 250 % 240, n % 250 + 1), "hostname": format!("h{n:05}"),
            "timestamp": 1_700_000_000, "metadata": {"integration_id": n.to_string(), "tags": "a,b"}})
        .to_string()
    };
    let lines: Vec<String> = (0..MANY).map(item).collect();
    let request = reqwest::Client::new().post(format!("{}/api/inventories/lab/main", server.http));
    let request = request.bearer_auth(&server.token).header("content-type", "application/x-ndjson");
    assert!(request.body(lines.join("\n")).send().await.unwrap().status().is_success());
    server.count("devices", MANY as u64).await;
}

#[tokio::test]
async fn exports_are_whole_in_every_format_and_for_adbc() {
    let mut home = Home::new("");
    let server = home.start();
    fill(&server).await;
    let query = "in:devices fields:uid,hostname,ip,ip_addresses,metadata,last_seen_time sort:hostname:asc";
    for format in ["ndjson", "csv", "arrow", "parquet"] {
        let (status, headers, bytes) = export(&server, &json!({"query": query, "format": format})).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&bytes));
        assert!(headers["radarflow-epoch"].to_str().unwrap().parse::<u64>().unwrap() > 0);
        std::fs::write(home.dir.path().join(format), bytes).unwrap();
    }
    let (_, _, sql) =
        export(&server, &json!({"sql": "SELECT uid, hostname FROM devices ORDER BY 2", "format": "parquet"})).await;
    std::fs::write(home.dir.path().join("sql"), sql).unwrap();
    // A page is a page, in whatever format.
    let (_, headers, page) = export(&server, &json!({"query": query, "format": "ndjson", "limit": 7})).await;
    assert_eq!(page.iter().filter(|b| **b == b'\n').count(), 7);
    let next = headers["radarflow-next-cursor"].to_str().unwrap();
    let (_, _, page) = export(&server, &json!({"query": query, "format": "ndjson", "limit": 2, "cursor": next})).await;
    let first: Value = serde_json::from_slice(page.split(|b| *b == b'\n').next().unwrap()).unwrap();
    assert_eq!(first["hostname"], "h00007");
    // What is empty still has its columns; what is wrong is a problem.
    let none = json!({"query": "in:devices hostname:none fields:uid,hostname", "format": "csv"});
    assert_eq!(export(&server, &none).await.2, b"uid,hostname\n");
    let (status, _, said) = export(&server, &json!({"query": "in:devices hostnam:x", "format": "arrow"})).await;
    let said: Value = serde_json::from_slice(&said).unwrap();
    assert_eq!((status, &said["code"], &said["did_you_mean"]), (400, &json!("unknown_field"), &json!("hostname")));

    let script = "
import sys, json, csv, pyarrow.ipc, pyarrow.parquet, adbc_driver_flightsql.dbapi as flight
home, http, token = sys.argv[1:]
rows = [json.loads(line) for line in open(f'{home}/ndjson')]
names = [row['hostname'] for row in rows]
assert names == sorted(names) and len(set(names)) == len(names), names[:3]
assert [row['hostname'] for row in csv.DictReader(open(f'{home}/csv'))] == names
assert pyarrow.ipc.open_stream(f'{home}/arrow').read_all()['hostname'].to_pylist() == names
assert pyarrow.parquet.read_table(f'{home}/parquet')['hostname'].to_pylist() == names
assert pyarrow.parquet.read_table(f'{home}/sql')['hostname'].to_pylist() == names
assert rows[0]['ip_addresses'] == ['10.20.0.1'] and rows[0]['metadata']['tags'] == 'a,b', rows[0]

uri = http.replace('http', 'grpc')
header = {'adbc.flight.sql.authorization_header': f'Bearer {token}'}
with flight.connect(uri, db_kwargs=header) as bearer, flight.connect(uri, db_kwargs={'username': 'me', 'password': token}) as named:
    for connection in (bearer, named):
        with connection.cursor() as cursor:
            cursor.execute('SELECT hostname FROM radarflow.public.devices ORDER BY hostname')
            assert [row[0] for row in cursor.fetchall()] == names
            cursor.execute('in:devices fields:hostname sort:hostname:asc')
            assert cursor.fetch_arrow_table()['hostname'].to_pylist() == names
            cursor.adbc_prepare('SELECT count(*) AS n FROM devices')
            cursor.execute('SELECT count(*) AS n FROM devices')
            assert cursor.fetchall() == [(len(names),)]
            # What is bound is a value; SRQL may begin with any term.
            for mark in ('?', '$1'):
                cursor.execute(f'SELECT hostname FROM devices WHERE hostname = {mark}', ('h00007',))
                assert cursor.fetchall() == [('h00007',)]
            cursor.execute('SELECT count(*) FROM devices WHERE hostname > ? AND hostname <= ?', (names[0], names[5]))
            assert cursor.fetchall() == [(5,)]
            cursor.execute('sort:hostname:desc in:devices fields:hostname limit:1')
            assert cursor.fetchall() == [(names[-1],)]
            cursor.execute('EXPLAIN SELECT hostname FROM devices')
            assert cursor.fetchall()
            for wrong in ('DROP TABLE devices', 'SELECT nothing FROM devices', 'in:devices nothing:1', 'SELECT'):
                try:
                    cursor.execute(wrong)
                    cursor.fetchall()
                    raise SystemExit(f'{wrong} was done')
                except flight.Error as error:
                    assert 'INVALID_ARGUMENT' in str(error) or 'InvalidArgument' in str(error), error
    objects = bearer.adbc_get_objects(depth='all').read_all().to_pylist()
    tables = objects[0]['catalog_db_schemas'][0]['db_schema_tables']
    devices = [t for t in tables if t['table_name'] == 'devices'][0]
    assert 'hostname' in [c['column_name'] for c in devices['table_columns']]
    assert bearer.adbc_get_info()['vendor_name'] == 'Radarflow'
    assert bearer.adbc_get_table_schema('flows').field('bytes_total')
try:
    with flight.connect(uri, db_kwargs={'adbc.flight.sql.authorization_header': 'Bearer rf_x'}) as c, c.cursor() as cursor:
        cursor.execute('SELECT 1')
    raise SystemExit('a stranger was let in')
except flight.Error as error:
    assert 'nauthenticated' in str(error).lower(), error
print(len(names))
";
    let home_path = home.dir.path().to_str().unwrap();
    assert_eq!(python(script, &[home_path, &server.http, &server.token]).trim(), MANY.to_string());

    // Whoever leaves in the middle leaves nothing running.
    let slow = json!({"query": "in:devices", "format": "ndjson"});
    let request = reqwest::Client::new().post(format!("{}/api/query", server.http)).bearer_auth(&server.token);
    let mut response = request.json(&slow).send().await.unwrap();
    assert!(response.chunk().await.unwrap().is_some());
    drop(response);
    server.metric("radarflow_queries_running 0").await;
    server.stop();
}

#[tokio::test]
async fn what_held_before_is_found_again_and_followed() {
    let mut home = Home::new("");
    let server = home.start();
    server.push("runner", "sync", &format!("[{},{}]", armis(1, "10.1.0.1", 1), armis(2, "10.1.0.2", 1))).await.unwrap();
    let before = server.until("in:devices sort:hostname:asc fields:hostname,ip", |rows| rows.len() == 2).await;
    let clock = async |server: &Server| {
        let (_, answer) = server.post("/api/query", &server.token, &json!({"query": "in:devices"})).await;
        answer["meta"]["frontier_time"].as_str().unwrap().to_owned()
    };
    let then = clock(&server).await;
    let script = "
import sys, json, asyncio, websockets
http, token = sys.argv[1:]
async def main():
    url = http.replace('http', 'ws') + '/api/query/stream?q=in:devices%20fields:hostname,ip'
    async with websockets.connect(url, additional_headers={'Authorization': f'Bearer {token}'}) as socket:
        snapshot = json.loads(await socket.recv())
        assert snapshot['event'] == 'snapshot' and snapshot['data']['last'], snapshot
        print(json.dumps(len(snapshot['data']['rows'])), flush=True)
        async for message in socket:
            event = json.loads(message)
            if event['event'] == 'change':
                print(json.dumps(event['data']['added']), flush=True)
                return
asyncio.run(main())
";
    let python = std::env::var("RADARFLOW_TEST_PYTHON").unwrap();
    let mut follower = tokio::process::Command::new(python)
        .args(["-c", script, &server.http, &server.token])
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = {
        use tokio::io::AsyncBufReadExt;
        tokio::io::BufReader::new(follower.stdout.take().unwrap()).lines()
    };
    let mut next = async || {
        let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await.expect("it goes on");
        serde_json::from_str::<Value>(&line.unwrap().expect("it says something")).unwrap()
    };
    assert_eq!(next().await, 2);
    server.push("runner", "sync", &format!("[{}]", armis(1, "10.1.0.9", 2))).await.unwrap();
    assert_eq!(next().await, json!([{"hostname": "host-1", "ip": "10.1.0.9"}]));
    assert!(follower.wait().await.unwrap().success());

    let asked = format!("in:devices sort:hostname:asc fields:hostname,ip at:{then}");
    assert_eq!(server.rows(&asked).await, before, "it is in memory still");
    server.stop();
    let server = home.start();
    assert_eq!(server.rows(&asked).await, before, "it is in the lake");
    let now = server.rows("in:devices sort:hostname:asc fields:hostname,ip").await;
    assert_eq!(now[0]["ip"], "10.1.0.9");
    let just_now = clock(&server).await;
    assert_eq!(server.rows(&format!("in:devices sort:hostname:asc fields:hostname,ip at:{just_now}")).await, now);
    assert_eq!(server.rows("in:devices at:2020-01-01").await, Vec::<Value>::new());
    assert_eq!(server.rows(&format!("in:ip_ownership at:{then} ip:10.1.0.9")).await, Vec::<Value>::new());

    // A client that was cut off says what it saw last; what is no epoch of this server is no place to go on from.
    let stream = async |seen: &str| {
        let url = format!("{}/api/query/stream?q=in:devices", server.http);
        let request = reqwest::Client::new().get(url).bearer_auth(&server.token).header("last-event-id", seen);
        let mut response = request.send().await.unwrap();
        let mut said = String::new();
        while !said.contains("\n\n") {
            said.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
        }
        said
    };
    let said = stream("999999999").await;
    assert!(said.starts_with("event: snapshot") && said.contains("\"reset\":true"), "{said}");
    let (_, answer) = server.post("/api/query", &server.token, &json!({"query": "in:devices"})).await;
    let said = stream(&answer["meta"]["epoch"].to_string()).await;
    assert!(said.starts_with("event: frontier"), "{said}");
    server.stop();
}

#[tokio::test]
async fn its_own_description_finds_no_mistake_in_it() {
    let mut home = Home::new("");
    let server = home.start();
    server.push("runner", "sync", &format!("[{}]", armis(1, "10.1.0.1", 1))).await.unwrap();
    server.count("devices", 1).await;
    let document: Value =
        reqwest::get(format!("{}/api/openapi.json", server.http)).await.unwrap().json().await.unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let lines = "import schemathesis\n@schemathesis.serializer('application/x-ndjson')\n\
                 def lines(context, value):\n    return str(value).encode()\n";
    std::fs::write(home.dir.path().join("hooks.py"), lines).unwrap();
    let python = std::env::var("RADARFLOW_TEST_PYTHON").unwrap();
    let output = Command::new(python)
        .args(["-m", "schemathesis.cli", "run", &format!("{}/api/openapi.json", server.http)])
        .args(["-H", &format!("Authorization: Bearer {}", server.token)])
        // Text of a language is valid or not for reasons that no schema knows.
        .args(["--checks", "all", "--exclude-checks", "positive_data_acceptance"])
        // It would take its own token away.
        .args(["--exclude-path", "/api/tokens/{id}", "--exclude-path", "/api/v2/tokens/{id}"])
        .args(["--exclude-path", "/api/query/stream", "--max-examples", "20", "--seed", "7", "--no-color"])
        .args(["--request-timeout", "20", "--generation-database", "none"])
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", home.dir.path())
        .current_dir(home.dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    server.metric("radarflow_queries_running 0").await;
    server.stop();
}

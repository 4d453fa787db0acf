//! Clients that speak the protocol of Postgres, as they are: psql, psycopg, SQLAlchemy, the JDBC driver; and what Grafana and
//! Metabase ask.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rand::RngExt;
use serde_json::json;

use crate::server::{Home, Server};
use crate::tools::python;

const LISTENER: &str = "[postgres]\naddr = \"127.0.0.1:0\"\n";
const DEVICES: usize = 3000;

async fn fill(server: &Server, token: &str) {
    let item = |n: usize| {
        json!({"ip": format!("10.{}.{}.{}", 20 + n / 60_000, n / 250 % 240, n % 250 + 1), "hostname": format!("h{n:05}"),
            "timestamp": 1_700_000_000, "metadata": {"integration_id": n.to_string(), "tags": "a,b"}})
        .to_string()
    };
    let lines: Vec<String> = (0..DEVICES).map(item).collect();
    let request = reqwest::Client::new().post(format!("{}/api/inventories/lab/main", server.http));
    let request = request.bearer_auth(token).header("content-type", "application/x-ndjson");
    assert!(request.body(lines.join("\n")).send().await.unwrap().status().is_success());
    server.count("devices", DEVICES as u64).await;
}

fn psql(addr: SocketAddr, token: &str, more: &[&str]) -> Command {
    let mut psql = Command::new("psql");
    psql.args([
        "-X",
        "-h",
        "127.0.0.1",
        "-p",
        &addr.port().to_string(),
        "-U",
        "me",
        "-d",
        "radarflow",
        "-v",
        "ON_ERROR_STOP=1",
    ]);
    psql.args(more).env("PGPASSWORD", token).env("PGCLIENTENCODING", "UTF8").env_remove("PGSSLMODE");
    psql
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What psql answers to some commands, and whether it is content.
fn run(addr: SocketAddr, token: &str, commands: &[&str]) -> (bool, String) {
    let mut psql = psql(addr, token, &[]);
    commands.iter().for_each(|command| {
        psql.args(["-c", command]);
    });
    let output = psql.output().unwrap();
    (output.status.success(), said(&output))
}

#[tokio::test]
async fn psql_finds_its_way() {
    let mut home = Home::new(LISTENER);
    let server = home.start();
    fill(&server, &server.token).await;
    let addr = server.port("postgres");
    let ask = |commands: &[&str]| {
        let (content, said) = run(addr, &server.token, commands);
        assert!(content, "{commands:?}: {said}");
        said
    };
    for (command, shows) in [
        ("\\d", " public | devices "),
        ("\\dt", "| table | radarflow"),
        ("\\d devices", " hostname "),
        ("\\d+ devices", "timestamp with time zone"),
        ("\\l", " radarflow | radarflow | UTF8"),
        ("\\dn", " public | radarflow"),
        ("\\df", "(0 rows)"),
        ("\\du", "radarflow"),
        ("\\dp devices", "devices"),
        ("\\d pg_class", " relname "),
        ("\\conninfo", "user \"me\""),
        ("SELECT count(*) FROM devices", &format!(" {DEVICES}\n")),
        ("SHOW server_version", "15.0"),
        ("EXPLAIN SELECT uid FROM devices", "logical_plan"),
        ("SELECT now() > '2020-01-01'", " t\n"),
    ] {
        let said = ask(&[command]);
        assert!(said.contains(shows), "{command}: {said}");
    }
    let expanded = ask(&["\\x", "SELECT hostname, ip_addresses, metadata FROM devices WHERE hostname = 'h00001'"]);
    assert!(expanded.contains("-[ RECORD 1 ]") && expanded.contains("ip_addresses | {10.20.0.2}"), "{expanded}");
    assert!(expanded.contains("\"tags\":\"a,b\""), "{expanded}");
    let cursor = ["BEGIN", "DECLARE c CURSOR FOR SELECT hostname FROM devices ORDER BY 1", "FETCH 2 FROM c"];
    let said = ask(&cursor);
    assert!(said.contains("h00000") && said.contains("h00001") && !said.contains("h00002"), "{said}");

    // What is wrong is told with its place; what writes is refused, and a transaction that failed stays so.
    for (commands, code, shows) in [
        (&["SELECT nothing FROM devices"][..], "42703", "LINE 1: SELECT nothing FROM devices"),
        (&["SELECT 1 + )"], "42601", "LINE 1"),
        (&["SELECT * FROM pg_class WHERE nothing"], "42703", "LINE 1: SELECT * FROM pg_class WHERE nothing"),
        (&["DELETE FROM devices"], "25006", "read-only"),
        (&["CREATE TABLE x (a int)"], "25006", "read-only"),
        (&["COPY devices FROM stdin"], "25006", "read-only"),
        (&["COPY devices TO stdout"], "0A000", "COPY TO"),
        (&["SELECT * FROM pg_class, devices"], "0A000", "catalogs"),
    ] {
        let mut arguments = vec!["\\set VERBOSITY verbose"];
        arguments.extend(commands);
        let (content, said) = run(addr, &server.token, &arguments);
        assert!(!content && said.contains(code) && said.contains(shows), "{commands:?}: {said}");
    }
    let (_, said) = run(addr, &server.token, &["\\set ON_ERROR_STOP 0", "BEGIN", "SELECT x", "SELECT 1", "COMMIT"]);
    assert!(said.contains("current transaction is aborted") && said.contains("ROLLBACK"), "{said}");

    // A wrong password, another database.
    let (content, said) = run(addr, "rf_wrong", &["SELECT 1"]);
    assert!(!content && said.contains("unknown, revoked or expired"), "{said}");
    let mut other = psql(addr, &server.token, &["-d", "other", "-c", "SELECT 1"]);
    let said = self::said(&other.output().unwrap());
    assert!(said.contains("database \"other\" does not exist") && said.contains("called radarflow"), "{said}");
    server.metric("radarflow_postgres_client_logins_total{outcome=\"rejected\"} 1").await;
    server.metric("radarflow_postgres_client_sessions 0").await;
    server.stop();
}

/// A statement that takes longer than anybody waits.
const LONG: &str =
    "SELECT count(*) FROM devices a, devices b, devices c WHERE a.hostname || b.hostname || c.hostname = 'x'";

#[tokio::test]
async fn what_is_cancelled_or_left_ends() {
    let mut home = Home::new(LISTENER);
    let server = home.start();
    fill(&server, &server.token).await;
    let addr = server.port("postgres");
    let begin = || {
        let mut psql = psql(addr, &server.token, &["-c", LONG]);
        psql.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    // Ctrl-C.
    let running = begin();
    server.metric("radarflow_queries_running 1").await;
    assert!(Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap().success());
    let output = running.wait_with_output().unwrap();
    assert!(said(&output).contains("canceling statement due to user request"), "{}", said(&output));
    server.metric("radarflow_postgres_client_cancelled_statements_total 1").await;
    server.metric("radarflow_queries_running 0").await;
    // Who leaves.
    let mut running = begin();
    server.metric("radarflow_queries_running 1").await;
    running.kill().unwrap();
    running.wait().unwrap();
    server.metric("radarflow_queries_running 0").await;
    server.metric("radarflow_postgres_client_sessions 0").await;
    // What was set as its time.
    let (content, said) = run(addr, &server.token, &["SET statement_timeout = '200ms'", LONG]);
    assert!(!content && said.contains("statement timeout"), "{said}");
    // A token that ends.
    let made = server.post("/api/tokens", &server.token, &json!({"name": "short", "role": "viewer"})).await.1;
    let mut running = psql(addr, made["token"].as_str().unwrap(), &["-c", LONG]);
    let running = running.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    server.metric("radarflow_queries_running 1").await;
    let path = format!("/api/tokens/{}", made["id"].as_str().unwrap());
    assert_eq!(server.ask(reqwest::Method::DELETE, &path, &server.token, &json!({})).await.0, 200);
    let output = running.wait_with_output().unwrap();
    assert!(self::said(&output).contains("revoked"), "{}", self::said(&output));
    server.metric("radarflow_queries_running 0").await;
    server.stop();
}

#[tokio::test]
async fn psycopg_and_sqlalchemy_ask() {
    let mut home = Home::new(LISTENER);
    let server = home.start();
    fill(&server, &server.token).await;
    let script = r#"
import sys, datetime, psycopg, sqlalchemy as sa
port, token, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
at = dict(host='127.0.0.1', port=port, dbname='radarflow', user='me', password=token)
with psycopg.connect(**at) as c:
    ask = lambda text, *args, binary=False: c.execute(text, *args, binary=binary).fetchall()
    assert ask('select count(*) from devices where hostname >= %s and epoch > %s', ('h', 0)) == [(count,)]
    for binary in (False, True):
        row = ask('select hostname, ip_addresses, metadata, last_seen_time, epoch > 0, 1.50::numeric(9,2), 2.5::float8, null from devices where hostname = any(%s) limit %s', (['h00001'], 1), binary=binary)[0]
        assert row[:2] == ('h00001', ['10.20.0.2']) and row[2]['tags'] == 'a,b', row
        assert row[3] == datetime.datetime.fromtimestamp(1_700_000_000, datetime.timezone.utc), row
        assert row[4:] == (True, __import__('decimal').Decimal('1.50'), 2.5, None), row
    since = datetime.datetime(2023, 1, 1, tzinfo=datetime.timezone.utc)
    assert ask('select count(*) from devices where last_seen_time > %b and last_seen_time > %s', (since, since)) == [(count,)]
    assert ask('select %s, %s, %s', (1, 'it''s', None)) == [(1, 'its', None)]
    with c.cursor('everything') as cursor:
        cursor.itersize = 700
        cursor.execute('select hostname from devices order by 1')
        assert [row[0] for row in cursor] == [f'h{n:05}' for n in range(count)]
    with c.pipeline():
        results = [c.execute('select %s::int8 + 1', (n,)) for n in range(20)]
        assert [r.fetchone()[0] for r in results] == list(range(1, 21))
    c.commit()
    for text, code in (('select nothing from devices', '42703'), ('delete from devices', '25006'), ('select 1/', '42601')):
        try:
            ask(text)
            raise SystemExit(text + ' was done')
        except psycopg.Error as error:
            assert error.sqlstate == code, (text, error.sqlstate, error)
        c.rollback()
    # Grafana.
    for text in ('select current_setting(\'server_version_num\')::int/100 as version',
        'select floor(extract(epoch from "last_seen_time")/60)*60 as "time", count(*) as value from devices where "last_seen_time" between \'2023-01-01T00:00:00Z\' and \'2030-01-01T00:00:00Z\' group by 1 order by 1',
        'select "last_seen_time" as "time", hostname as metric, epoch as value from devices where last_seen_time >= \'2023-01-01T00:00:00Z\' order by 1 limit 5',
        'select date_trunc(\'hour\', "last_seen_time") as time, count(*) from devices group by 1 order by 1'):
        rows = ask(text)
        assert rows, text
    # Metabase.
    assert ask('SELECT "public"."devices"."uid" AS "uid", "public"."devices"."hostname" AS "hostname" FROM "public"."devices" LIMIT 2000')
    assert ask('SELECT CAST("public"."devices"."last_seen_time" AS date) AS "d", COUNT(*) AS "count" FROM "public"."devices" WHERE "public"."devices"."last_seen_time" >= timestamp with time zone \'2023-01-01 00:00:00.000Z\' GROUP BY CAST("public"."devices"."last_seen_time" AS date) ORDER BY 1 ASC') == [(datetime.date(2023, 11, 14), count)]
    assert ask('select current_user, current_schema(), \'devices\'::regclass::text, uid from devices limit 1')[0][1:3] == ('public', 'devices')

engine = sa.create_engine(sa.URL.create('postgresql+psycopg', 'me', token, '127.0.0.1', port, 'radarflow'))
looked = sa.inspect(engine)
assert 'devices' in looked.get_table_names() and looked.get_schema_names() == ['information_schema', 'public']
columns = {column['name']: column for column in looked.get_columns('devices')}
assert isinstance(columns['last_seen_time']['type'], sa.TIMESTAMP) and isinstance(columns['ip_addresses']['type'], sa.ARRAY)
assert looked.get_pk_constraint('devices')['constrained_columns'] == [] and looked.get_indexes('devices') == []
assert looked.get_foreign_keys('devices') == [] and looked.get_table_comment('devices')['text']
tables = sa.MetaData()
tables.reflect(engine, only=['devices'])
devices = tables.tables['devices']
with engine.connect() as c:
    assert c.execute(sa.select(sa.func.count()).where(devices.c.hostname.like('h000%'))).scalar() == 100
print(count)
"#;
    let port = server.port("postgres").port().to_string();
    let answer = python(script, &[&port, &server.token, &DEVICES.to_string()]);
    assert_eq!(answer.trim(), DEVICES.to_string());
    server.stop();
}

#[tokio::test]
async fn the_jdbc_driver_looks_around() {
    let mut home = Home::new(LISTENER);
    let server = home.start();
    fill(&server, &server.token).await;
    let jars = std::env::var("RADARFLOW_TEST_JDBC").expect("deploy/services.sh names the driver's folder");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/Introspect.java");
    let url = format!("jdbc:postgresql://127.0.0.1:{}/radarflow", server.port("postgres").port());
    let java =
        Command::new("java").args(["-cp", &format!("{jars}/*")]).arg(source).args([&url, &server.token]).output();
    let output = java.unwrap();
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    for line in [
        "PostgreSQL 15.0",
        "devices:TABLE true",
        "hostname text 12 ",
        "last_seen_time timestamptz 93 ",
        "ip_addresses _text 2003 ",
        "keys 0 imported 0 indexes 0",
        "h00002 true 2023-11-14T22:13:20Z",
        &format!("fetched {DEVICES}"),
        "refused 25006",
        "cancelled 57014",
        "valid true",
    ] {
        assert!(said.contains(line), "{line} is not in {said}");
    }
    server.stop();
}

#[tokio::test]
async fn a_tenant_sees_its_own_alone() {
    let mut home = Home::new(LISTENER);
    let server = home.start();
    fill(&server, &server.token).await;
    let addr = server.port("postgres");
    let token = |name: &str, partitions: &[&str]| {
        let body = json!({"name": name, "role": "viewer", "partitions": partitions});
        let server = &server;
        async move { server.post("/api/tokens", &server.token, &body).await.1["token"].as_str().unwrap().to_owned() }
    };
    let (bound, elsewhere) = (token("bound", &["default"]).await, token("elsewhere", &["other"]).await);
    let count = |token: &str| run(addr, token, &["SELECT count(*) AS n FROM devices"]).1;
    assert!(count(&bound).contains(&format!(" {DEVICES}\n")) && count(&elsewhere).contains(" 0\n"));
    let everywhere = "SELECT count(*) FROM devices WHERE hostname LIKE 'h%' OR true OR partition = 'default'";
    assert!(run(addr, &elsewhere, &[everywhere]).1.contains(" 0\n"));
    server.stop();
    // Another tenant's token, made on the host.
    let data = home.dir.path().join("data");
    let made = Command::new(env!("CARGO_BIN_EXE_radarflow"))
        .args(["token", "create", "--name", "theirs", "--role", "admin", "--tenant", "other", "--data-dir"])
        .arg(&data)
        .output()
        .unwrap();
    let theirs = said(&made);
    let theirs = theirs.split_whitespace().find(|word| word.starts_with("rf_")).unwrap_or_else(|| panic!("{theirs}"));
    let server = home.start();
    let addr = server.port("postgres");
    assert!(run(addr, theirs, &["SELECT count(*) FROM devices"]).1.contains(" 0\n"));
    assert!(run(addr, theirs, &["SELECT tenant_id, count(*) FROM devices GROUP BY 1"]).1.contains("(0 rows)"));
    let activity = run(addr, theirs, &["SELECT DISTINCT usename FROM pg_stat_activity"]).1;
    assert!(activity.contains("theirs") && activity.contains("(1 row)"), "{activity}");
    server.stop();
}

#[tokio::test]
async fn tls_is_agreed_upon_and_strange_bytes_end_a_connection_alone() {
    let mut home = Home::new(LISTENER);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let [certificate_path, key_path] = ["pg.pem", "pg.key"].map(|name| home.dir.path().join(name));
    std::fs::write(&certificate_path, certificate.pem()).unwrap();
    std::fs::write(&key_path, key.serialize_pem()).unwrap();
    home.config = home
        .config
        .replace(LISTENER, &format!("{LISTENER}tls = {{ certificate = {certificate_path:?}, key = {key_path:?} }}\n"));
    let server = home.start();
    let addr = server.port("postgres");
    let mut secure = psql(addr, &server.token, &["-c", "\\conninfo", "-c", "SELECT count(*) FROM devices"]);
    secure.env("PGSSLMODE", "verify-ca").env("PGSSLROOTCERT", &certificate_path);
    let output = secure.output().unwrap();
    assert!(output.status.success() && said(&output).contains("SSL connection"), "{}", said(&output));

    let mut random = rand::rng();
    let start = b"\0\0\0\x24\0\x03\0\0user\0me\0database\0radarflow\0\0";
    for round in 0..200 {
        let mut socket = TcpStream::connect(addr).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let noise: Vec<u8> = (0..random.random_range(1..300)).map(|_| random.random()).collect();
        // Some come as strangers, some begin well, some even log in.
        let mut bytes = Vec::new();
        if round % 3 > 0 {
            bytes.extend_from_slice(start);
        }
        if round % 3 > 1 {
            bytes.push(b'p');
            bytes.extend((server.token.len() as u32 + 5).to_be_bytes());
            bytes.extend(server.token.as_bytes());
            bytes.push(0);
            // A message of a length that is right, and nothing else.
            bytes.push(*b"QPBDECHSXdcf".get(round % 12).unwrap());
            bytes.extend((noise.len() as u32 + 4).to_be_bytes());
        }
        bytes.extend(noise);
        let _ = socket.write_all(&bytes);
        let _ = socket.shutdown(std::net::Shutdown::Write);
        let begun = Instant::now();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        assert!(begun.elapsed() < Duration::from_secs(20), "round {round}: {answer:?}");
    }
    let (content, said) = run(addr, &server.token, &["SELECT 1 AS one"]);
    assert!(content && said.contains("one"), "{said}");
    server.metric("radarflow_postgres_client_sessions 0").await;
    server.stop();
}

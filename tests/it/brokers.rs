//! NATS JetStream and Kafka, the real ones: what they hold is read exactly once, whenever the program dies.

use std::time::Duration;

use async_nats::jetstream;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::server::{Home, Server};

const SUBJECTS: [&str; 3] = ["flows.raw.netflow", "logs.syslog", "logs.snmp"];

pub(crate) fn service(name: &str) -> String {
    std::env::var(name).expect("run deploy/test.sh, or eval \"$(deploy/services.sh up)\"")
}

fn varint(mut n: u64, out: &mut Vec<u8>) {
    while n > 127 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// A `flowpb.FlowMessage` of 100 bytes in 2 packets from port `n`.
fn flow_message(n: u16) -> Vec<u8> {
    let mut out = Vec::new();
    for (field, address) in [(6u64, [10u8, 0, 0, 1]), (7, [10, 0, 0, 2]), (11, [127, 0, 0, 9])] {
        varint(field << 3 | 2, &mut out);
        out.push(4);
        out.extend(address);
    }
    for (field, value) in [(3u64, 1u64), (9, 100), (10, 2), (20, 6), (21, n.into()), (22, 443)] {
        varint(field << 3, &mut out);
        varint(value, &mut out);
    }
    out
}

/// The `n`th message of a subject; every 50th is none that can be read.
fn message(subject: &str, n: u16) -> Vec<u8> {
    if n % 50 == 49 {
        return vec![0xff, 0xfe, n as u8];
    }
    match subject {
        "flows.raw.netflow" => flow_message(n),
        "logs.syslog" => format!(
            r#"{{"version":"1.1","host":"h{n}","short_message":"message {n}","level":4,"_remote_addr":"default:10.9.0.1"}}"#
        )
        .into_bytes(),
        _ => format!(
            r#"{{"1.3.6.1.6.3.1.1.4.1.0":"OID: 1.3.6.1.6.3.1.1.5.3","1.3.6.1.2.1.2.2.1.1.{n}":"INTEGER: {n}"}}"#
        )
        .into_bytes(),
    }
}

/// `total` of each subject, counted: all that can be read are rows, once; the others are rejects, once.
async fn counted_exactly(server: &Server, total: u64) {
    let bad = total / 50;
    for entity in ["flows", "logs", "traps"] {
        server.count(entity, total - bad).await;
    }
    server.count("rejects", bad * 3).await;
    let sums = server.rows("in:flows stats:\"sum(bytes_raw) as b, count_distinct(src_endpoint_port) as p\"").await;
    assert_eq!((sums[0]["b"].as_u64(), sums[0]["p"].as_u64()), (Some((total - bad) * 100), Some(total - bad)));
    for row in server.rows("in:sources").await {
        let n = |c: &str| row[c].as_i64().unwrap();
        assert_eq!(n("received"), n("stored") + n("rejected") + n("shed"), "{row}");
    }
}

#[tokio::test]
async fn a_jetstream_is_read_exactly_once_over_kills() {
    let url = service("RADARFLOW_TEST_NATS");
    let stream = format!("events{}", rand::random::<u32>());
    let prefix = format!("p{}", rand::random::<u32>());
    let js = jetstream::new(async_nats::connect(&url).await.unwrap());
    let subjects: Vec<String> = SUBJECTS.iter().map(|s| format!("{prefix}.{s}")).collect();
    let made = js
        .create_stream(jetstream::stream::Config {
            name: stream.clone(),
            subjects: subjects.clone(),
            ..Default::default()
        })
        .await
        .unwrap();
    let mut home =
        Home::new(&format!("[[sources.nats]]\nurl = \"{url}\"\nstream = \"{stream}\"\nsubjects = {subjects:?}\n"));
    let mut server = home.start();
    let mut n = 0;
    for round in 0..3u64 {
        for _ in 0..200 {
            for (subject, full) in SUBJECTS.iter().zip(&subjects) {
                js.publish(full.clone(), message(subject, n).into()).await.unwrap();
            }
            n += 1;
        }
        // Somewhere between delivery and acknowledgement.
        tokio::time::sleep(Duration::from_millis(40 * round)).await;
        server.kill();
        server = home.start();
    }
    counted_exactly(&server, n.into()).await;
    // What was durable but not acknowledged when it died is said again, known, and acknowledged now.
    for subject in &subjects {
        let name = format!("radarflow-{}", subject.replace('.', "_"));
        crate::sinks::until("all is acknowledged", || async {
            let info = made.consumer_info(&name).await.unwrap();
            (info.num_ack_pending, info.num_pending) == (0, 0)
        })
        .await;
    }
    counted_exactly(&server, n.into()).await;
    server.stop();
    // Another stream under the same name begins at one again.
    js.delete_stream(&stream).await.unwrap();
    js.create_stream(jetstream::stream::Config {
        name: stream.clone(),
        subjects: subjects.clone(),
        ..Default::default()
    })
    .await
    .unwrap();
    let server = home.start();
    js.publish(subjects[1].clone(), message("logs.syslog", 0).into()).await.unwrap();
    server.count("logs", u64::from(n) - u64::from(n) / 50 + 1).await;
    server.stop();
}

#[tokio::test]
async fn kafka_topics_are_read_exactly_once_over_kills() {
    let brokers = service("RADARFLOW_TEST_KAFKA");
    let prefix = format!("p{}", rand::random::<u32>());
    let topics: Vec<String> = SUBJECTS.iter().map(|s| format!("{prefix}.{s}")).collect();
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &brokers).set("group.id", "radarflow");
    let admin: AdminClient<DefaultClientContext> = client.create().unwrap();
    let create = async || {
        let wanted: Vec<_> = topics.iter().map(|t| NewTopic::new(t, 2, TopicReplication::Fixed(1))).collect();
        // A topic that is being deleted is there for a while.
        while admin.create_topics(&wanted, &AdminOptions::new()).await.unwrap().iter().any(Result::is_err) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    create().await;
    let producer: FutureProducer = client.create().unwrap();
    let send = async |topic: &str, n: u16, body: Vec<u8>| {
        let key = n.to_string();
        for _ in 0..100 {
            let record = FutureRecord::to(topic).payload(&body).key(&key);
            match producer.send(record, Duration::from_secs(20)).await {
                Ok(_) => return,
                // A client may not know a topic yet, or know the one before it of that name; nothing was sent.
                Err((
                    KafkaError::MessageProduction(RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownPartition),
                    _,
                )) => tokio::time::sleep(Duration::from_millis(100)).await,
                Err((error, _)) => panic!("{error}"),
            }
        }
        panic!("{topic} has no partitions");
    };
    let mut home =
        Home::new(&format!("[[sources.kafka]]\nbrokers = \"{brokers}\"\ntopics = {topics:?}\ngroup = \"{prefix}\"\n"));
    let mut server = home.start();
    let mut n = 0;
    for round in 0..3u64 {
        for _ in 0..200 {
            let sends = SUBJECTS.iter().zip(&topics).map(|(subject, topic)| send(topic, n, message(subject, n)));
            for sent in sends {
                sent.await;
            }
            n += 1;
        }
        tokio::time::sleep(Duration::from_millis(60 * round)).await;
        server.kill();
        server = home.start();
    }
    counted_exactly(&server, n.into()).await;
    server.stop();
    // The group's offsets show that nothing waits.
    let group = prefix.clone();
    let shown = topics.clone();
    tokio::task::spawn_blocking(move || {
        let tool: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", &brokers).set("group.id", &group).create().unwrap();
        for topic in shown {
            let mut asked = rdkafka::TopicPartitionList::new();
            for partition in 0..2 {
                asked.add_partition(&topic, partition);
            }
            let committed = tool.committed_offsets(asked, Duration::from_secs(10)).unwrap();
            for element in committed.elements() {
                let (_, high) = tool.fetch_watermarks(&topic, element.partition(), Duration::from_secs(10)).unwrap();
                assert_eq!(element.offset(), rdkafka::Offset::Offset(high), "{topic}/{}", element.partition());
            }
        }
    })
    .await
    .unwrap();
    // A topic that was made anew begins at nought again.
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    for gone in admin.delete_topics(&names, &AdminOptions::new()).await.unwrap() {
        gone.unwrap();
    }
    create().await;
    for i in 0..8 {
        send(&topics[1], i, message("logs.syslog", i)).await;
    }
    let server = home.start();
    server.count("logs", u64::from(n) - u64::from(n) / 50 + 8).await;
    server.stop();
}

#[tokio::test]
async fn a_kafka_that_asks_for_tls_and_a_password_is_read_with_both() {
    let (brokers, ca) = (service("RADARFLOW_TEST_KAFKA_SECURE"), service("RADARFLOW_TEST_KAFKA_CA"));
    let topic = format!("p{}.logs.syslog", rand::random::<u32>());
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", service("RADARFLOW_TEST_KAFKA"));
    let producer: FutureProducer = client.create().unwrap();
    let body = message("logs.syslog", 0);
    producer.send(FutureRecord::to(&topic).payload(&body).key("k"), Duration::from_secs(20)).await.unwrap();

    let mut home = Home::new("");
    let plain = home.config.clone();
    let password = home.dir.path().join("password");
    let configured = |trusted: &str| {
        format!(
            "{plain}[[sources.kafka]]\nbrokers = {brokers:?}\ntopics = [{topic:?}]\ngroup = {topic:?}\n\
             [sources.kafka.properties]\n\"security.protocol\" = \"SASL_SSL\"\n{trusted}\
             \"sasl.mechanism\" = \"SCRAM-SHA-256\"\n\"sasl.username\" = \"radarflow\"\n\
             \"sasl.password\" = \"file:{}\"\n",
            password.display()
        )
    };
    let trusted = configured(&format!("\"ssl.ca.location\" = {ca:?}\n"));
    // What is wrong is said in the broker's words.
    for (config, said, why) in [(&configured(""), "hush", "certificate verify failed"), (&trusted, "wrong", "SASL")] {
        let file = home.dir.path().join("check.toml");
        std::fs::write(&file, config).unwrap();
        std::fs::write(&password, said).unwrap();
        // A busy broker may take longer to refuse than one look takes.
        let refused = || async {
            let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_radarflow"));
            let checked = check.arg("check-config").arg("--config").arg(&file).output().unwrap();
            let told = String::from_utf8_lossy(&checked.stderr);
            assert!(
                !checked.status.success() && told.contains("[[sources.kafka]]") && !told.contains("hush"),
                "{told}"
            );
            told.contains(why)
        };
        crate::sinks::until(why, refused).await;
    }
    std::fs::write(&password, "hush\n").unwrap();
    home.config = trusted;
    let server = home.start();
    server.count("logs", 1).await;
    server.stop();
}

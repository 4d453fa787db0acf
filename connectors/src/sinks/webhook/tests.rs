//! The outbox against receivers that are real sockets: dead, slow, endless, well.

use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;

use radarflow_proto::fact::Receiver;
use radarflow_proto::frame::Range;
use radarflow_proto::payload::NotifiedAlert;
use radarflow_proto::ports::{BoxFuture, Part};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// What was recorded: receiver, message, whether it was delivered, and what is said of it.
#[derive(Default)]
struct Recorded {
    facts: Mutex<Vec<(String, String, bool, String)>>,
    /// When that was, as the ledger is told.
    times_us: Mutex<Vec<i64>>,
    /// So many times it refuses first.
    refusals: AtomicUsize,
}

impl Appender for Recorded {
    fn append_all(&self, parts: Vec<Part>, _: Vec<Range>) -> BoxFuture<Result<u64, AppendError>> {
        if self.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
            return Box::pin(async { Err(AppendError::Storage("no room".to_owned())) });
        }
        let mut facts = self.facts.lock().unwrap();
        for (origin, entries) in parts {
            for entry in entries {
                self.times_us.lock().unwrap().push(entry.received_us);
                match serde_json::from_slice(&entry.body).unwrap() {
                    Fact::Delivery { tenant, receiver, notification_id, delivered, detail, .. } => {
                        assert_eq!(tenant, origin.tenant);
                        facts.push((receiver, notification_id, delivered, detail));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        Box::pin(async { Ok(1) })
    }

    fn durable(&self) -> Option<u64> {
        Some(1)
    }

    fn offer(&self, _: Arc<Origin>, entries: Vec<Entry>) -> Result<(), Vec<Entry>> {
        Err(entries)
    }
}

/// A clock that stands.
struct Noon;

const NOON_MS: i64 = 1_704_110_400_000;

impl Clock for Noon {
    fn wall_ms(&self) -> i64 {
        NOON_MS
    }

    fn monotonic_ms(&self) -> i64 {
        1
    }

    fn boot_id(&self) -> Option<String> {
        None
    }
}

impl Recorded {
    fn of(&self, receiver: &str) -> Vec<(String, bool, String)> {
        let facts = self.facts.lock().unwrap();
        facts.iter().filter(|fact| fact.0 == receiver).map(|f| (f.1.clone(), f.2, f.3.clone())).collect()
    }
}

fn receiver(tenant: &str, name: &str, url: &str) -> Receiver {
    Receiver::new(tenant, name, ReceiverKind::Alertmanager, url)
}

fn due(tenant: &str, name: &str, addr: SocketAddr, n: usize) -> DueNotification {
    DueNotification {
        id: format!("{name}-{n:06}"),
        tenant: tenant.into(),
        receiver: receiver(tenant, name, &format!("http://{addr}/hook")),
        group_key: format!("g{n}"),
        group_labels: BTreeMap::new(),
        alerts: vec![],
        reason: "x".repeat(500),
        at_ms: 0,
    }
}

fn epoch(due: Vec<DueNotification>) -> EpochOutput {
    EpochOutput { epoch: 1, due, ..EpochOutput::default() }
}

fn outbox() -> (Outbox, Arc<Recorded>) {
    let recorded = Arc::new(Recorded::default());
    (Outbox::start(recorded.clone(), Arc::new(Noon), "http://r".to_owned(), Reach::Anywhere).unwrap(), recorded)
}

async fn until(what: &str, mut right: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !right() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Reads one request; its idempotency key.
async fn request(socket: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let n = socket.read(&mut piece).await.ok().filter(|n| *n > 0)?;
        read.extend_from_slice(&piece[..n]);
        let text = String::from_utf8_lossy(&read).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let header = |name: &str| Some(head.split_once(name)?.1.split("\r\n").next()?.trim().to_owned());
        if body.len() >= header("content-length:")?.parse().ok()? {
            return header("idempotency-key:");
        }
    }
}

/// What a receiver did.
#[derive(Default)]
struct Seen {
    keys: Mutex<Vec<String>>,
    open: AtomicUsize,
    most_open: AtomicUsize,
}

/// A receiver that does something with each socket once it has read a request.
async fn serve<F>(answer: impl Fn(TcpStream, usize) -> F + Send + Sync + 'static) -> (SocketAddr, Arc<Seen>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let seen = Arc::new(Seen::default());
    let (log, answer) = (seen.clone(), Arc::new(answer));
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (log, answer) = (log.clone(), answer.clone());
            tokio::spawn(async move {
                let open = log.open.fetch_add(1, Ordering::Relaxed) + 1;
                log.most_open.fetch_max(open, Ordering::Relaxed);
                if let Some(key) = request(&mut socket).await {
                    let n = {
                        let mut keys = log.keys.lock().unwrap();
                        keys.push(key);
                        keys.len()
                    };
                    answer(socket, n).await;
                }
                log.open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    (addr, seen)
}

async fn say(mut socket: TcpStream, text: &'static str) {
    let _ = socket.write_all(text.as_bytes()).await;
}

const OK: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
const BROKEN: &str = "HTTP/1.1 500 Broken\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_never_answers_has_few_places_and_takes_nothing_from_others() {
    // It accepts, and says nothing until the other side goes.
    let (dead, dead_seen) = serve(|mut socket: TcpStream, _| async move {
        let _ = socket.read(&mut [0; 1]).await;
    })
    .await;
    let (well, well_seen) = serve(|socket, _| say(socket, OK)).await;
    let (outbox, recorded) = outbox();
    outbox.go();
    let began = Instant::now();
    for n in 0..10_000 {
        outbox.take(&epoch(vec![due("a", "dead", dead, n)]));
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    until("the dead receiver has its places", || dead_seen.open.load(Ordering::Relaxed) == PER_RECEIVER).await;
    let began = Instant::now();
    outbox.take(&epoch(vec![due("b", "well", well, 0), due("a", "also", well, 0)]));
    until("both arrive", || recorded.of("well").len() == 1 && recorded.of("also").len() == 1).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(well_seen.keys.lock().unwrap().len(), 2);
    // After the first time-outs it has one.
    until("it is tried again", || dead_seen.keys.lock().unwrap().len() > PER_RECEIVER).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(dead_seen.open.load(Ordering::Relaxed), 1);
    assert_eq!(dead_seen.most_open.load(Ordering::Relaxed), PER_RECEIVER);
    // What there is no room for is told of; the oldest are kept.
    let refused = outbox.refused().load(Ordering::Relaxed) as usize;
    until("what is refused is recorded", || recorded.of("dead").len() == refused).await;
    assert!(refused > 0 && refused < 10_000 && outbox.waiting_bytes() <= RECEIVER_BYTES);
    let told = recorded.of("dead");
    assert!(told.iter().all(|(_, delivered, detail)| !delivered && detail.contains("too much waits")), "{:?}", told[0]);
    assert_eq!(told.iter().map(|(id, ..)| id).min(), Some(&format!("dead-{:06}", 10_000 - refused)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_end_and_one_that_trickles_are_answers() {
    let head = "HTTP/1.1 200 OK\r\n\r\n";
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let (endless, _) = serve(move |mut socket, _| {
        let sent = counted.clone();
        async move {
            let _ = socket.write_all(head.as_bytes()).await;
            while let Ok(()) = socket.write_all(&[b'x'; 65536]).await {
                sent.fetch_add(65536, Ordering::Relaxed);
            }
        }
    })
    .await;
    let (trickle, _) = serve(move |mut socket, _| async move {
        let _ = socket.write_all(head.as_bytes()).await;
        while let Ok(()) = socket.write_all(b"x").await {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await;
    let (outbox, recorded) = outbox();
    outbox.go();
    let began = Instant::now();
    outbox.take(&epoch(vec![due("a", "endless", endless, 0), due("a", "trickle", trickle, 0)]));
    until("both are delivered", || recorded.of("endless").len() + recorded.of("trickle").len() == 2).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    for (name, at_most) in [("endless", MAX_ANSWER + 16), ("trickle", 32)] {
        let (_, delivered, detail) = &recorded.of(name)[0];
        assert!(*delivered && detail.starts_with("200 OK x") && detail.len() <= at_most, "{name}: {detail}");
    }
    assert!(sent.load(Ordering::Relaxed) < 64 << 20);
    // What is recorded bears the time of the clock that was handed in.
    assert_eq!(*recorded.times_us.lock().unwrap(), [NOON_MS * 1000; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_comes_back_gets_everything_and_the_ledger_is_told_also_when_it_was_full() {
    let (addr, seen) = serve(|socket, n| say(socket, if n <= 5 { BROKEN } else { OK })).await;
    let (outbox, recorded) = outbox();
    recorded.refusals.store(2, Ordering::Relaxed);
    let all: Vec<_> = (0..300).map(|n| due("a", "ops", addr, n)).collect();
    outbox.take(&epoch(all.clone()));
    // Said twice: sent once.
    outbox.take(&epoch(all));
    let settled = vec!["ops-000000".to_owned(), "ops-000299".to_owned()];
    outbox.take(&EpochOutput { epoch: 2, settled: settled.clone(), ..EpochOutput::default() });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(seen.keys.lock().unwrap().is_empty(), "nothing is sent before it may be");
    outbox.go();
    until("everything is recorded", || recorded.of("ops").len() == 298).await;
    assert!(recorded.of("ops").iter().all(|(_, delivered, _)| *delivered));
    let keys = seen.keys.lock().unwrap();
    let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
    assert_eq!((distinct.len(), keys.len()), (298, 298 + 5));
    assert!(settled.iter().all(|id| !distinct.contains(id)), "what is settled is not sent");
    assert_eq!((outbox.waiting_bytes(), outbox.refused().load(Ordering::Relaxed)), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_refuses_is_a_dead_letter_and_does_not_make_its_receiver_a_failing_one() {
    let refuse = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno!";
    let (addr, seen) = serve(move |socket, n| say(socket, if n == 1 { refuse } else { OK })).await;
    let (outbox, recorded) = outbox();
    outbox.go();
    outbox.take(&epoch((0..20).map(|n| due("a", "ops", addr, n)).collect()));
    until("everything is recorded", || recorded.of("ops").len() == 20).await;
    let dead: Vec<_> = recorded.of("ops").into_iter().filter(|(_, delivered, _)| !delivered).collect();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].2, "400 Bad Request no!");
    assert_eq!(seen.keys.lock().unwrap().len(), 20);
}

#[test]
fn the_payload_is_alertmanagers_to_the_letter() {
    let alert = |id: &str, ends: Option<i64>| NotifiedAlert {
        id: id.into(),
        fingerprint: format!("f{id}"),
        labels: BTreeMap::from([("alertname".into(), "x".into()), ("id".into(), id.into())]),
        annotations: BTreeMap::new(),
        starts_at_ms: 1_704_067_200_000,
        ends_at_ms: ends,
    };
    let due = DueNotification {
        id: "n".into(),
        tenant: "t".into(),
        receiver: Receiver::new("t", "ops", ReceiverKind::Alertmanager, ""),
        group_key: "{}:{}".into(),
        group_labels: BTreeMap::new(),
        alerts: vec![alert("1", None), alert("2", Some(1_704_067_201_500))],
        reason: String::new(),
        at_ms: 0,
    };
    let expected = r#"{"version":"4","groupKey":"{}:{}","truncatedAlerts":0,"status":"firing","receiver":"ops",
        "groupLabels":{},"commonLabels":{"alertname":"x"},"commonAnnotations":{},"externalURL":"http://r","alerts":[
        {"status":"firing","labels":{"alertname":"x","id":"1"},"annotations":{},"startsAt":"2024-01-01T00:00:00Z",
         "endsAt":"0001-01-01T00:00:00Z","generatorURL":"http://r/api/v2/alerts/1/explain","fingerprint":"f1"},
        {"status":"resolved","labels":{"alertname":"x","id":"2"},"annotations":{},"startsAt":"2024-01-01T00:00:00Z",
         "endsAt":"2024-01-01T00:00:01.500Z","generatorURL":"http://r/api/v2/alerts/2/explain","fingerprint":"f2"}]}"#;
    assert_eq!(alertmanager_payload(&due, "http://r"), serde_json::from_str::<Value>(expected).unwrap());
}

//! Live queries: what a client received sums up to a fresh query, whatever happens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use radarflow_proto::ports::EpochOutput;
use radarflow_proto::rows::{Change, Device, DeviceRedirect, StateRow, Table};
use radarflow_query::actor::Actor;
use radarflow_query::engine::Engine;
use radarflow_query::error::QueryError;
use radarflow_query::live::events::{Event, Events};
use radarflow_query::live::streams::Streams;
use radarflow_query::live::waiting::{STREAM_BYTES, STREAMS_TENANT};
use radarflow_query::tables::live::Live;
use radarflow_query::tables::recent::{RECENT_BYTES, RECENT_EPOCHS};
use serde_json::Value;

use crate::{actor, data, engine, json};

/// What a client has.
#[derive(Default)]
struct Client {
    rows: BTreeMap<String, i64>,
    epoch: u64,
    snapshots: usize,
    /// More of a snapshot follows.
    partial: bool,
    /// What is right at epochs, where that is known.
    right: BTreeMap<u64, BTreeMap<String, i64>>,
}

impl Client {
    fn count(&mut self, rows: &[Value], sign: i64) {
        for row in rows {
            let n = self.rows.entry(row.to_string()).or_default();
            *n += sign;
            assert!(*n >= 0, "only what was there goes: {row}");
        }
        self.rows.retain(|_, n| *n > 0);
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::Snapshot { epoch, rows, last, reset } => {
                assert_eq!(*reset, self.snapshots > 0, "only the first is none that resets");
                if !self.partial {
                    self.rows.clear();
                }
                self.partial = !last;
                self.snapshots += usize::from(*last);
                self.epoch = if *last { *epoch } else { 0 };
                self.count(rows, 1);
            }
            Event::Change { epoch, added, removed } => {
                assert!(*epoch > self.epoch, "changes come in order");
                self.epoch = *epoch;
                self.count(removed, -1);
                self.count(added, 1);
                assert!(self.right.get(epoch).is_none_or(|right| *right == self.rows), "{:?} at {epoch}", self.rows);
            }
            Event::Frontier(epoch) => self.epoch = *epoch,
            other => panic!("{other:?}"),
        }
    }

    /// Takes events until it has everything of an epoch.
    async fn until(&mut self, events: &mut Events, epoch: u64) {
        while self.epoch < epoch {
            let event = tokio::time::timeout(Duration::from_secs(20), events.recv()).await;
            self.take(&event.expect("the epoch comes").expect("the stream goes on"));
        }
    }
}

async fn fresh(engine: &Arc<Engine>, query: &str) -> BTreeMap<String, i64> {
    let query = if query.contains("limit:") { query.to_owned() } else { format!("{query} limit:10000") };
    let answer = engine.query(&actor("t", &[]), &query, None, None).await.expect("it answers");
    let mut rows = BTreeMap::new();
    for row in json(&answer) {
        *rows.entry(row.to_string()).or_default() += 1;
    }
    rows
}

fn devices() -> Vec<StateRow> {
    data::devices()
}

fn start(streams: &Streams, actor: &Actor, query: &str) -> Result<Events, QueryError> {
    streams.start(actor, query, None)
}

/// A number below one: SplitMix64.
fn next(random: &mut u64, below: usize) -> usize {
    *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *random;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) % below as u64) as usize
}

/// An epoch in which some devices change, come and go.
fn churn(epoch: u64, now: &mut Vec<StateRow>, random: &mut u64) -> EpochOutput {
    let mut next = |below: usize| next(random, below);
    let mut changes = Vec::new();
    for n in 0..1 + next(4) {
        if now.len() > 3 && next(4) == 0 {
            let before = now.swap_remove(next(now.len()));
            changes.extend(Change::new(Some(before), None));
            continue;
        }
        let at = next(now.len());
        let before = now[at].clone();
        let StateRow::Device(device) = &before else { continue };
        let mut device = Device::clone(device);
        device.vendor_name = Some(["Cisco", "Dell", "Axis"][next(3)].to_owned());
        device.is_available = [Some(true), Some(false), None][next(3)];
        if next(3) == 0 {
            device.uid = format!("sr:new-{epoch}-{n}");
            device.partition = ["default", "site-b"][next(2)].to_owned();
            let after = StateRow::from(device).at(epoch);
            now.push(after.clone());
            changes.extend(Change::new(None, Some(after)));
        } else if !changes.iter().any(|c: &Change| *c.key == *before.key()) {
            let after = StateRow::from(device).at(epoch);
            now[at] = after.clone();
            changes.extend(Change::new(Some(before), Some(after)));
        }
    }
    // A key changes once an epoch.
    let mut seen = std::collections::BTreeSet::new();
    changes.retain(|c| seen.insert(c.key.clone()));
    EpochOutput { epoch, clock_ms: data::NOW + epoch as i64, changes, ..EpochOutput::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_received_sums_up_to_a_fresh_query() {
    let engine = engine();
    let streams = Streams::new(engine.clone());
    let queries = [
        "in:devices",
        "in:devices vendor_name:Cisco fields:uid,hostname stream:true",
        "in:devices !is_available:true fields:vendor_name",
        r#"in:devices stats:"count() as n by vendor_name""#,
        r#"in:devices stats:"count() as n, count_distinct(hostname) as names, min(hostname) as first, max(last_seen_time) as last, sum(epoch) as s, avg(epoch) as a, count_if(is_available:false) as down, min(vendor_name) as v by vendor_name,partition""#,
        r#"in:devices is_available:false stats:"count() as n, min(epoch) as m, max(uid) as u, sum(epoch) as s, avg(epoch) as a""#,
        r#"in:devices stats:"count() as n by vendor_name" having:"n > 2""#,
        r#"in:devices stats:"max(epoch) as newest, count() as n by uid" sort:newest:desc,uid limit:3"#,
        r#"in:devices stats:"count() as n by ip:24, discovery_sources, metadata.rack""#,
        r#"in:devices stats:"median(epoch) as m, count() as n by partition""#,
        "in:devices uid:(in:alerts fields:device_uid) fields:uid,vendor_name",
        "in:alerts device.vendor_name:Cisco fields:id",
    ];
    let mut clients: Vec<_> = queries
        .iter()
        .map(|query| (Client::default(), start(&streams, &actor("t", &[]), query).expect("it starts")))
        .collect();
    let mut bound =
        (Client::default(), start(&streams, &actor("t", &["site-b"]), "in:devices fields:partition").unwrap());
    let (mut now, mut random) = (devices(), 7);
    now.retain(|row| row.tenant() == "t");
    for epoch in 4..60 {
        let output = churn(epoch, &mut now, &mut random);
        // What a change takes away is what is there: rows made anew have their key only once.
        engine.live().apply(&output.into());
        if epoch % 8 == 0 {
            for (query, (client, events)) in queries.iter().zip(&mut clients) {
                client.until(events, epoch).await;
                let query = query.trim_end_matches(" stream:true");
                assert_eq!(client.rows, fresh(&engine, query).await, "{query} at {epoch}");
            }
            bound.0.until(&mut bound.1, epoch).await;
            assert!(bound.0.rows.keys().all(|row| row.contains("site-b")), "{:?}", bound.0.rows);
        }
    }
    assert!(clients.iter().all(|(client, _)| client.snapshots == 1));
}

/// An epoch in which flows come, some of them late, and now and then two devices turn out to be one.
fn traffic(epoch: u64, clock_ms: i64, random: &mut u64) -> EpochOutput {
    let mut flows = Vec::new();
    for n in 0..next(random, 7) {
        let late = if next(random, 3) == 0 { 70_000_000 } else { 2_000_000 };
        let time_us = clock_ms * 1000 - next(random, late) as i64;
        flows.push(data::flow(epoch, n as u64, time_us, next(random, 5) as u64, next(random, 9000) as u64));
    }
    let mut output = EpochOutput { epoch, clock_ms, ..EpochOutput::default() };
    output.events.extend((!flows.is_empty()).then(|| (Table::Flow, data::batch(&flows))));
    if next(random, 12) == 0 {
        let (from, to) = (next(random, 5), 5 + next(random, 2));
        let redirect = |epoch| DeviceRedirect {
            tenant_id: "t".into(),
            partition: "default".into(),
            from_uid: format!("sr:web{from}"),
            to_uid: format!("sr:web{to}"),
            identifier: format!("armis@main:{from}"),
            epoch,
        };
        output.changes.extend(Change::new(None, Some(StateRow::from(redirect(epoch as i64)))));
    }
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_of_events_are_kept_while_their_span_slides() {
    let queries = [
        r#"in:flows time:last_1m stats:"count() as n, sum(bytes_total) as bytes by src_endpoint_ip""#,
        r#"in:flows time:last_1m stats:"sum(bytes_total) as bytes, count() as n by src_endpoint_ip" limit:2"#,
        r#"in:flows time:last_1m window:10s stats:"count() as n, count_distinct(src_endpoint_ip) as ips, max(bytes_total) as most, min(time) as first by app""#,
        r#"in:flows time:last_30s app:dns stats:"avg(bytes_total) as mean, count_if(bytes_total:>4000) as large""#,
        r#"in:flows time:last_1m stats:"count() as n by src_device_uid" having:"n > 1""#,
        r#"in:flows time:last_1m stats:"count() as n by time(10s)""#,
        r#"in:flows stats:"count() as n, max(bytes_total) as most by app""#,
        r#"in:flows time:[2024-03-01,] src_endpoint_ip:10.0.0.2 stats:count()"#,
        r#"in:flows time:last_1m stats:"median(bytes_total) as m by app""#,
    ];
    for seed in [3, 4] {
        let engine = engine();
        let streams = Streams::new(engine.clone());
        let mut clients: Vec<_> = queries
            .iter()
            .map(|query| (Client::default(), start(&streams, &actor("t", &[]), query).expect("it starts")))
            .collect();
        let bound = actor("t", &["site-b"]);
        let mut of_site = (Client::default(), start(&streams, &bound, queries[0]).unwrap());
        let (mut clock_ms, mut random) = (data::NOW, seed);
        for epoch in 4..84 {
            clock_ms += match next(&mut random, 12) {
                0 => 30_000,
                n => 1 + n as i64 * 150,
            };
            engine.live().apply(&traffic(epoch, clock_ms, &mut random).into());
            for (query, (client, _)) in queries.iter().zip(&mut clients) {
                client.right.insert(epoch, fresh(&engine, query).await);
            }
            if epoch % 16 != 3 {
                continue;
            }
            for (query, (client, events)) in queries.iter().zip(&mut clients) {
                client.until(events, epoch).await;
                assert_eq!(client.rows, fresh(&engine, query).await, "{query} at {epoch}, seed {seed}");
            }
            of_site.0.until(&mut of_site.1, epoch).await;
            let answer = engine.query(&bound, queries[0], None, None).await.unwrap();
            let answer: BTreeMap<String, i64> = json(&answer).iter().map(|row| (row.to_string(), 1)).collect();
            assert_eq!(of_site.0.rows, answer, "seed {seed}");
        }
        // One fresh snapshot each: what they had to read again was only what their spans left.
        assert!(clients.iter().all(|(client, _)| client.snapshots == 1));
        assert!(engine.reserved_bytes() > 0, "groups are kept");
        drop((clients, of_site));
        let gone = async {
            while streams.running() > 0 || engine.reserved_bytes() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), gone).await.expect("nothing is left behind");
    }
}

/// What a span leaves is read again: what will not be there to be read is asked for instead.
#[tokio::test(flavor = "multi_thread")]
async fn groups_of_events_are_kept_only_where_the_events_are() {
    let month = Some(Duration::from_secs(30 * 86_400));
    let lake = || Live::new(Some("no-lake".into()), 0).keeping(month);
    let groups = |span: &str| format!(r#"in:flows {span} stats:"count() as n by app""#);
    for (live, span, kept) in [
        (lake(), "time:last_28d", true),
        (lake(), "time:last_30d", false),
        (lake(), "time:[2024-03-20,]", true),
        (lake(), "time:>=2024-03-31", true),
        (lake(), "time:2024-03-31", false),
        (Live::new(None, 0), "time:last_1h", false),
    ] {
        let engine = crate::engine_over(live);
        let streams = Streams::new(engine.clone());
        let mut events = start(&streams, &actor("t", &[]), &groups(span)).unwrap();
        let mut client = Client::default();
        client.until(&mut events, 3).await;
        assert_eq!(engine.reserved_bytes() > 0, kept, "{span}");
        assert_eq!(client.rows, fresh(&engine, &groups(span)).await, "{span}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stalls_is_told_with_a_fresh_snapshot() {
    let engine = engine();
    let streams = Streams::new(engine.clone());
    let mut events = start(&streams, &actor("t", &[]), "in:devices").unwrap();
    let mut client = Client::default();
    client.until(&mut events, 3).await;
    let (mut now, mut random) = (devices(), 9);
    now.retain(|row| row.tenant() == "t");
    // Far more than are kept for those who are behind.
    let last = 4 * RECENT_EPOCHS as u64;
    for epoch in 4..=last {
        engine.live().apply(&churn(epoch, &mut now, &mut random).into());
    }
    client.until(&mut events, last).await;
    assert!(client.snapshots > 1, "it was behind");
    assert_eq!(client.rows, fresh(&engine, "in:devices").await);
}

/// Whoever follows may take nothing for so long.
fn impatient(slow: Duration) -> (Arc<Engine>, Streams) {
    let engine = crate::engine_over(Live::new(None, 0));
    (engine.clone(), Streams::with_patience(engine, slow))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_let_go_and_told_how_to_go_on() {
    let (engine, streams) = impatient(Duration::from_millis(300));
    let query = "in:devices fields:uid,vendor_name,is_available";
    let mut events = start(&streams, &actor("t", &[]), query).unwrap();
    let mut client = Client::default();
    client.until(&mut events, 3).await;
    let (mut now, mut random) = (devices(), 9);
    now.retain(|row| row.tenant() == "t");
    let (mut at, began) = (3, std::time::Instant::now());
    while streams.running() > 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "it waits for ever");
        at += 1;
        engine.live().apply(&churn(at, &mut now, &mut random).into());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What waits stays until it is taken or left; nothing else is kept for the client.
    assert!(streams.bytes() > 0 && streams.bytes() <= STREAM_BYTES);
    let seen = loop {
        match events.recv().await.expect("it says why it ends") {
            Event::TooSlow(seen) => break seen,
            event => client.take(&event),
        }
    };
    assert!(events.recv().await.is_none());
    assert_eq!((seen, streams.bytes()), (Some(client.epoch), 0));
    let (name, data) = Event::TooSlow(seen).parts();
    assert_eq!((name, &data["reason"]), ("end", &"too_slow".into()));
    let id = data["last_event_id"].as_str().unwrap();
    let mut events = streams.start(&actor("t", &[]), query, Some(id)).unwrap();
    client.until(&mut events, at).await;
    assert_eq!(client.rows, fresh(&engine, query).await);
    assert_eq!(client.snapshots, 1, "it needed no other");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_keep_no_epochs() {
    let (engine, streams) = impatient(Duration::from_secs(60));
    let queries =
        ["in:devices", r#"in:devices stats:"count() as n by vendor_name""#, "in:alerts device.vendor_name:Cisco"];
    // They take their snapshots, and nothing after that.
    let mut stalled = Vec::new();
    for query in queries {
        let mut events = start(&streams, &actor("t", &[]), query).unwrap();
        Client::default().until(&mut events, 3).await;
        stalled.push(events);
    }
    // There is a lot of traffic, whoever follows what.
    let flows: Vec<_> = (0..2000).map(|n| data::flow(4, n, data::NOW * 1000, 1, n)).collect();
    let flows = data::batch(&flows);
    let size = flows.get_array_memory_size();
    let (mut now, mut random) = (devices(), 9);
    now.retain(|row| row.tenant() == "t");
    let mut epochs = Vec::new();
    for epoch in 4..400 {
        let mut output = churn(epoch, &mut now, &mut random);
        output.events.push((Table::Flow, flows.clone()));
        let output = Arc::new(output);
        epochs.push(Arc::downgrade(&output));
        engine.live().apply(&output);
    }
    let most = RECENT_BYTES / size + 1 + stalled.len();
    assert!(most < 200, "the test needs larger epochs: {size}");
    let held = epochs.iter().filter(|epoch| epoch.strong_count() > 0).count();
    assert!(held <= most, "{held} epochs of {size} bytes are held");
    assert_eq!(streams.running(), queries.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_cut_off_goes_on_where_it_was() {
    let engine = engine();
    let streams = Streams::new(engine.clone());
    let actor = actor("t", &[]);
    let again = |query: &str, seen: &str| streams.start(&actor, query, Some(seen)).unwrap();
    let (query, grouped) = ("in:devices fields:uid,vendor_name", r#"in:devices stats:"count() as n by vendor_name""#);
    let (mut now, mut random) = (devices(), 11);
    now.retain(|row| row.tenant() == "t");
    let mut client = Client::default();
    let mut events = start(&streams, &actor, query).unwrap();
    let mut at = 3;
    for _ in 0..20 {
        client.until(&mut events, at).await;
        drop(events);
        for _ in 0..9 {
            at += 1;
            engine.live().apply(&churn(at, &mut now, &mut random).into());
        }
        // What it saw last is what it says; more than it says it never had.
        events = again(query, &client.epoch.to_string());
    }
    client.until(&mut events, at).await;
    assert_eq!(client.rows, fresh(&engine, query).await);
    assert_eq!(client.snapshots, 1, "it needed no other");

    // What cannot be gone on with begins anew, and says so: groups, epochs too long ago, ids of somebody else.
    let long_ago = at;
    for _ in 0..=RECENT_EPOCHS {
        at += 1;
        engine.live().apply(&churn(at, &mut now, &mut random).into());
    }
    for (query, seen) in
        [(query, long_ago.to_string()), (query, (at + 100).to_string()), (query, "x".into()), (grouped, at.to_string())]
    {
        let first = again(query, &seen).recv().await.unwrap();
        assert!(matches!(first, Event::Snapshot { reset: true, .. }), "{query} {seen}: {first:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_of_one_version_whatever_happens_meanwhile() {
    use radarflow_query::engine::cursor::PINNED;
    let queries = [
        "in:devices sort:vendor_name:asc limit:2",
        "in:devices is_available:true sort:is_available,hostname limit:1",
        r#"in:devices stats:"count() as n by vendor_name,uid" limit:2"#,
        "in:devices sort:status_color:asc fields:uid,status_color,vendor_name limit:2",
        "in:flows sort:time fields:time,src_device.vendor_name,src_device.is_available limit:1",
        // No history is kept of these.
        "in:sources sort:source limit:1",
    ];
    let (kept, forgetful) = (engine(), crate::engine_over(radarflow_query::tables::live::Live::new(None, 0)));
    let actor = actor("t", &[]);
    for (n, query) in queries.iter().enumerate() {
        for (engine, forget) in [(&kept, false), (&kept, true), (&forgetful, false), (&forgetful, true)] {
            let (mut now, mut random) = (Vec::new(), 17 + n as u64);
            let start = engine.live().view().epoch;
            now.extend(engine.live().view().rows::<Device>("t").into_iter().map(StateRow::from));
            let whole = query.rsplit_once(" limit").unwrap().0;
            let whole = json(&engine.query(&actor, whole, None, None).await.unwrap());
            let (mut pages, mut cursor) = (Vec::new(), None::<String>);
            let mut epoch = start;
            loop {
                let page = match engine.query(&actor, query, cursor.as_deref(), None).await {
                    Ok(page) => page,
                    // Where nothing is kept it is said, not answered wrongly.
                    Err(QueryError::Expired)
                        if forget && (!engine.live().view().history || query.starts_with("in:sources")) =>
                    {
                        pages.clone_from(&whole);
                        break;
                    }
                    Err(error) => panic!("{query}: {error:?}"),
                };
                assert_eq!(page.meta.epoch, start, "{query}, forget: {forget}");
                pages.extend(json(&page));
                cursor = page.next_cursor;
                if cursor.is_none() {
                    break;
                }
                epoch += 1;
                engine.live().apply(&churn(epoch, &mut now, &mut random).into());
                if forget {
                    // Others page too, until nobody remembers.
                    for _ in 0..=PINNED {
                        epoch += 1;
                        let clock_ms = data::NOW + epoch as i64;
                        let quiet = EpochOutput { epoch, clock_ms, ..EpochOutput::default() };
                        engine.live().apply(&quiet.into());
                        engine.query(&actor, "in:devices limit:1", None, None).await.unwrap();
                    }
                }
            }
            assert_eq!(pages, whole, "{query}, forget: {forget}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_held_then_is_what_the_tables_showed_then() {
    let engine = engine();
    let actors = [actor("t", &[]), actor("t", &["site-b"]), actor("u", &[])];
    let queries = [
        "in:devices include_deleted:true sort:uid",
        "in:devices vendor_name:(Cisco,Dell) sort:is_available,uid fields:uid,is_available,ip_addresses,metadata",
        r#"in:devices stats:"count() as n, max(last_seen_time) as m by vendor_name, partition""#,
        "in:alerts device.vendor_name:Juniper fields:id,device.hostname",
    ];
    let (mut now, mut random) = (devices(), 13);
    now.retain(|row| row.tenant() == "t");
    let mut then = Vec::new();
    for epoch in 4..60 {
        engine.live().apply(&churn(epoch, &mut now, &mut random).into());
        if epoch % 14 != 0 {
            continue;
        }
        let at = radarflow_proto::cell::Time::from_ms(data::NOW + epoch as i64);
        for actor in &actors {
            for query in queries {
                let answer = engine.query(actor, query, None, None).await.expect("it answers");
                then.push((actor, query, at, json(&answer)));
            }
        }
    }
    let mut different = 0;
    for (actor, query, at, showed) in &then {
        let asked = format!("{query} at:{at}");
        let answer = engine.query(actor, &asked, None, None).await.unwrap_or_else(|e| panic!("{asked}: {e:?}"));
        assert_eq!(json(&answer), *showed, "{asked}");
        let fresh = engine.query(actor, query, None, None).await.expect("it answers");
        different += usize::from(json(&fresh) != *showed);
    }
    assert!(different > 8, "most of it is another today: {different}");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_counted_bounded_and_leave_nothing_behind() {
    let engine = engine();
    let streams = Streams::new(engine.clone());
    let of = |tenant: &str| start(&streams, &actor(tenant, &[]), "in:devices");
    let all: Vec<_> = (0..STREAMS_TENANT).map(|_| of("t").expect("there is room")).collect();
    assert!(of("t").is_err(), "a tenant has so many");
    assert!(of("u").is_ok(), "another has its own");
    drop(all);
    while streams.running() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for wrong in ["in:devices cursor:x", "in:devices explain:true", "in:devices nothing:1", "in:nothing"] {
        assert!(start(&streams, &actor("t", &[]), wrong).is_err(), "{wrong}");
    }
    let mut events = of("t").unwrap();
    streams.close();
    let mut last = None;
    while let Some(event) = events.recv().await {
        last = Some(event);
    }
    assert_eq!(last, Some(Event::End));
}

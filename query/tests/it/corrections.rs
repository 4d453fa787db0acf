//! Events are of the devices that had their addresses, as is known today.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::RecordBatch;
use radarflow_proto::cell::{RowId, Time};
use radarflow_proto::ports::EpochOutput;
use radarflow_proto::rows::{AttributionCorrection, BatchBuilder, Log, Row, Table};
use radarflow_query::engine::Engine;
use radarflow_query::tables::live::Live;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::data::NOW;
use crate::{actor, json};

fn at(second: i64) -> Time {
    Time::from_ms(NOW + second * 1000)
}

fn line(epoch: u64, index: u32, ip: Option<&str>, second: i64, uid: Option<&str>) -> Log {
    Log {
        tenant_id: "t".into(),
        partition: "default".into(),
        row_id: RowId::new(epoch, 0, index),
        epoch: epoch as i64,
        time: at(second),
        received_at: at(second),
        source_ip: ip.map(|ip| ip.parse().unwrap()),
        body: format!("{epoch}/{index}"),
        parse_status: "rfc5424".into(),
        device_uid: uid.map(str::to_owned),
        ..Log::default()
    }
}

fn correction(tenant: &str, epoch: u64, index: u32, ip: &str, from: i64, uid: Option<&str>) -> AttributionCorrection {
    AttributionCorrection {
        tenant_id: tenant.into(),
        partition: "default".into(),
        row_id: RowId::new(epoch, 1, index),
        epoch: epoch as i64,
        time: at(epoch as i64),
        ip: ip.into(),
        valid_from: at(from),
        valid_to: at(epoch as i64 + 86_400),
        device_uid: uid.map(str::to_owned),
    }
}

fn batch<R: Row>(rows: &[R]) -> (Table, RecordBatch) {
    let mut builder = R::Batch::default();
    rows.iter().for_each(|row| builder.push(row));
    (R::TABLE, builder.finish())
}

const IPS: [&str; 4] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "2001:db8::1"];
const UIDS: [Option<&str>; 4] = [Some("sr:a"), Some("sr:b"), Some("sr:c"), None];

/// The second `n` is that of the epoch `n`.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_learnt_late_is_laid_over_what_is_stored() {
    for seed in 0..20 {
        let mut rng = StdRng::seed_from_u64(seed);
        let live = Arc::new(Live::new(None, 0));
        let engine = Arc::new(Engine::new(live.clone(), [7; 32]).unwrap());
        let (mut lines, mut learnt) = (Vec::new(), Vec::new());
        for epoch in 1..120u64 {
            let mut events = Vec::new();
            let new: Vec<Log> = (0..rng.random_range(0..6))
                .map(|i| {
                    let ip = (rng.random_range(0..8) > 0).then(|| IPS[rng.random_range(0..4)]);
                    line(epoch, i, ip, epoch as i64 - rng.random_range(0..30), UIDS[rng.random_range(0..4)])
                })
                .collect();
            let late: Vec<AttributionCorrection> = (0..rng.random_range(0..3))
                .map(|i| {
                    let ip = IPS[(i as usize + epoch as usize) % 4];
                    let from = epoch as i64 - rng.random_range(0..60);
                    correction("t", epoch, i, ip, from, UIDS[rng.random_range(0..4)])
                })
                .collect();
            let others = correction("u", epoch, 0, IPS[0], 0, Some("sr:u"));
            events.extend((!new.is_empty()).then(|| batch(&new)));
            events.extend((!late.is_empty()).then(|| batch(&late)));
            events.push(batch(&[others]));
            lines.extend(new);
            learnt.extend(late);
            live.apply(
                &EpochOutput { epoch, clock_ms: NOW + epoch as i64 * 1000, events, ..Default::default() }.into(),
            );
        }
        let right = |line: &Log| {
            let ip = line.source_ip.map(|ip| ip.to_string());
            let later = learnt
                .iter()
                .filter(|c| Some(&c.ip) == ip.as_ref() && c.epoch > line.epoch && c.valid_from <= line.time);
            later.max_by_key(|c| c.epoch).map_or(line.device_uid.clone(), |c| c.device_uid.clone())
        };
        let mut expected: BTreeMap<Option<String>, i64> = BTreeMap::new();
        lines.iter().for_each(|line| *expected.entry(right(line)).or_default() += 1);
        let ask = async |query: &str| {
            let answer = engine.query(&actor("t", &[]), query, None, None).await;
            json(&answer.unwrap_or_else(|e| panic!("{query}: {e:?}")))
        };
        let rows = ask("in:logs time:last_7d stats:\"count() as n by device_uid\"").await;
        let got = rows.iter().map(|r| (r["device_uid"].as_str().map(str::to_owned), r["n"].as_i64().unwrap()));
        assert_eq!(got.collect::<BTreeMap<_, _>>(), expected, "seed {seed}");
        let bodies = ask("in:logs time:last_7d device_uid:\"sr:a\" fields:body limit:10000").await;
        let mut bodies: Vec<&str> = bodies.iter().map(|r| r["body"].as_str().unwrap()).collect();
        let is_a = |line: &&Log| right(line).as_deref() == Some("sr:a");
        let mut wanted: Vec<&str> = lines.iter().filter(is_a).map(|l| l.body.as_str()).collect();
        bodies.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(bodies, wanted, "seed {seed}");
        let sql = engine.sql(&actor("t", &[]), "SELECT count(*) AS n FROM logs WHERE device_uid = 'sr:a'", None).await;
        assert_eq!(json(&sql.unwrap())[0]["n"], wanted.len());
        assert!(expected.keys().all(|uid| uid.as_deref() != Some("sr:u")), "of another tenant's nothing is seen");
        let own = ask("in:attribution_corrections time:last_7d stats:count()").await;
        assert_eq!(own[0]["count"], learnt.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_says_when_it_may_lack_what_was_learnt_late() {
    let live = Arc::new(Live::new(None, 0));
    let engine = Arc::new(Engine::new(live.clone(), [7; 32]).unwrap());
    let tell = |epoch: u64, events| {
        live.apply(&EpochOutput { epoch, clock_ms: NOW + epoch as i64 * 1000, events, ..Default::default() }.into());
    };
    tell(1, vec![batch(&[line(1, 0, Some("10.0.0.1"), 1, Some("sr:a")), line(1, 1, Some("10.0.0.2"), 1, None)])]);
    tell(2, vec![batch(&[correction("t", 2, 0, "10.0.0.1", 0, Some("sr:b"))])]);
    let of = |i: u32| std::net::Ipv4Addr::from(0x0a10_0000 + i).to_string();
    let many: Vec<_> = (0..700_000).map(|i| correction("t", 3, i, &of(i), 0, None)).collect();
    tell(3, vec![batch(&many)]);
    let ask =
        async || engine.query(&actor("t", &[]), "in:logs time:last_7d sort:row_id:asc", None, None).await.unwrap();
    let before = ask().await;
    assert_eq!((&json(&before)[0]["device_uid"], before.meta.warnings.len()), (&"sr:b".into(), 0));
    let mut many: Vec<_> = (0..700_000).map(|i| correction("t", 4, i, &of(i + 700_000), 0, None)).collect();
    many.push(correction("t", 5, 0, "10.0.0.2", 0, Some("sr:c")));
    tell(5, vec![batch(&many)]);
    let after = ask().await;
    assert!(live.corrections() <= 1_000_000);
    assert_eq!(json(&after)[1]["device_uid"], "sr:c", "the newest are kept");
    assert!(after.meta.warnings[0].contains("learnt late"), "{:?}", after.meta.warnings);
}

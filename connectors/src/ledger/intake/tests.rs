//! Intake on a log of its own, with a thread and without a dataflow.

use std::sync::Mutex;

use bytes::Bytes;
use radarflow_proto::clock::{LedgerClock, Shown};
use radarflow_proto::frame::{Kind, MAX_FRAME};

use super::super::clock::Reading;
use super::super::clock::tests::Hands;
use super::*;
use crate::clock::SystemClock;

fn entry(text: &str) -> Entry {
    Entry { peer: None, received_us: 1, body: Bytes::copy_from_slice(text.as_bytes()) }
}

#[tokio::test]
async fn what_no_frame_can_hold_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_progress, paced) = watch::channel(Progress::default());
    let log = Segments::open(crate::disk::os(), dir.path(), 0).unwrap();
    let (intake, running) = start(log, paced, |_| {}, || None, Bounds::default(), time(&dir));
    // The same megabytes, again and again: they are not copied before they are looked at.
    let part = Entry { peer: None, received_us: 1, body: Bytes::from(vec![b'x'; 16 << 20]) };
    let parts = vec![part; MAX_FRAME >> 24];
    let refused = intake.append(origin(Kind::Status), parts.clone()).await.unwrap_err();
    assert!(matches!(refused, AppendError::TooLarge { bytes, most } if bytes > most), "{refused}");
    assert!(refused.to_string().contains("in parts"), "{refused}");
    assert_eq!(intake.offer(origin(Kind::Syslog), parts).unwrap_err().len(), MAX_FRAME >> 24);
    // It takes no place of what follows.
    intake.append(origin(Kind::Status), vec![entry("next")]).await.unwrap();
    drop(intake);
    tokio::task::spawn_blocking(|| running.stop()).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_acknowledged_is_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let log = Segments::open(crate::disk::os(), dir.path(), 0).unwrap();
    let (seen, frames) = std::sync::mpsc::channel();
    let (_progress, paced) = watch::channel(Progress::default());
    let (intake, running) = start(log, paced, move |f| seen.send(f).unwrap(), || None, Bounds::default(), time(&dir));
    let origin = Arc::new(Origin { kind: Kind::Syslog, tenant: "t".into(), partition: "p".into(), feed: "f".into() });
    let appended =
        futures::future::join_all((0..50).map(|i| intake.append(origin.clone(), vec![entry(&i.to_string())]))).await;
    let last = appended.into_iter().map(|r| r.unwrap()).max().unwrap();
    let mut on_disk = 0;
    Segments::open(crate::disk::os(), dir.path(), 0).unwrap().replay(0, |f| on_disk += f.entries()).unwrap();
    assert_eq!(on_disk, 50);
    intake.offer(origin.clone(), vec![entry("late")]).unwrap();
    drop(intake);
    let log = tokio::task::spawn_blocking(|| running.stop()).await.unwrap().unwrap();
    let delivered: Vec<_> = frames.iter().collect();
    assert_eq!(delivered.iter().map(|f| f.entries()).sum::<usize>(), 51);
    assert!(delivered.windows(2).all(|w| w[0].epoch + 1 == w[1].epoch && w[0].clock_ms <= w[1].clock_ms));
    assert!(last <= delivered.last().unwrap().epoch && log.next_epoch() == delivered.last().unwrap().epoch + 1);
}

fn time(dir: &tempfile::TempDir) -> Timekeeping {
    Timekeeping::new(crate::disk::os(), Arc::new(SystemClock), dir.path().join("clock"))
}

fn origin(kind: Kind) -> Arc<Origin> {
    Arc::new(Origin { kind, tenant: "t".into(), partition: "p".into(), feed: "f".into() })
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_in_no_frame() {
    let dir = tempfile::tempdir().unwrap();
    let (seen, mut frames) = mpsc::unbounded_channel();
    let (progress, paced) = watch::channel(Progress::default());
    let bounds = Bounds { in_flight: 0, ..Bounds::default() };
    let log = Segments::open(crate::disk::os(), dir.path(), 0).unwrap();
    let (intake, running) = start(log, paced, move |f| seen.send(f).unwrap(), || None, bounds, time(&dir));
    // A frame that the dataflow is not done with holds up the next.
    let first = intake.append(origin(Kind::Status), vec![entry("first")]).await.unwrap();
    let gone = tokio::time::timeout(TICK, intake.append(origin(Kind::OtlpLogs), vec![entry("gone")])).await;
    assert!(gone.is_err() && intake.stats().awaited_bytes.load(Ordering::Relaxed) > 0);
    let stays = tokio::spawn(intake.append(origin(Kind::OtlpLogs), vec![entry("gone")]));
    progress.send_replace(Progress { epoch: first, released: false });
    let kept = loop {
        let frame: Arc<Frame> = frames.recv().await.unwrap();
        progress.send_replace(Progress { epoch: frame.epoch, released: false });
        if frame.epoch > first && frame.entries() > 0 {
            break frame.entries();
        }
    };
    assert_eq!((kept, intake.stats().given_up.load(Ordering::Relaxed)), (1, 1));
    assert!(stays.await.unwrap().unwrap() > first);
    assert_eq!(intake.stats().awaited_bytes.load(Ordering::Relaxed), 0);
    drop(intake);
    tokio::task::spawn_blocking(|| running.stop()).await.unwrap().unwrap();
}

#[tokio::test]
async fn no_more_frames_are_closed_than_the_dataflow_may_be_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (seen, mut frames) = mpsc::unbounded_channel();
    let (progress, paced) = watch::channel(Progress::default());
    let bounds = Bounds { in_flight: 0, ..Bounds::default() };
    let log = Segments::open(crate::disk::os(), dir.path(), 0).unwrap();
    let (intake, running) = start(log, paced, move |f| seen.send(f).unwrap(), || None, bounds, time(&dir));
    for n in 0..2 {
        intake.offer(origin(Kind::Syslog), vec![entry(&n.to_string())]).unwrap();
        let frame: Arc<Frame> = loop {
            let frame: Arc<Frame> = frames.recv().await.unwrap();
            progress.send_replace(Progress { epoch: frame.epoch.saturating_sub(1), released: false });
            if frame.entries() > 0 {
                break frame;
            }
            progress.send_replace(Progress { epoch: frame.epoch, released: false });
        };
        // It is not done with this one: even time stands still.
        let more = tokio::time::timeout(IDLE_TICK * 2, frames.recv()).await;
        assert!(more.is_err() && intake.stats().in_flight_bytes.load(Ordering::Relaxed) > 0);
        progress.send_replace(Progress { epoch: frame.epoch, released: false });
    }
    drop(progress);
    tokio::task::spawn_blocking(|| running.stop()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_leap_of_the_wall_is_told_and_followed_once_it_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let (t0, year) = (1_767_225_600_000, 365 * 86_400_000);
    let hands = Arc::new(Hands(Mutex::new(Reading { wall_ms: t0, monotonic_ms: 0 })));
    let time = Timekeeping::new(crate::disk::os(), hands.clone(), dir.path().join("clock"));
    let (seen, mut frames) = mpsc::unbounded_channel();
    let (_progress, paced) = watch::channel(Progress::default());
    let log = Segments::open(crate::disk::os(), dir.path(), 0).unwrap();
    let (intake, running) = start(log, paced, move |f| seen.send(f).unwrap(), || None, Bounds::default(), time);
    let at = |wall_ms, monotonic_ms| *hands.0.lock().unwrap() = Reading { wall_ms, monotonic_ms };
    // A frame that was closed after the clocks were set: the one after the next.
    let mut frame = async || {
        frames.recv().await;
        let frame: Arc<Frame> = frames.recv().await.unwrap();
        (frame.clock_ms, frame.gap_ms)
    };
    assert_eq!(frame().await, (t0, 0));
    at(t0 + year, 1000);
    assert_eq!(frame().await, (t0 + 1000, 0));
    assert_eq!(intake.stats().shown(), Shown { clock_ms: t0 + 1000, held_by_ms: year - 1000 });
    intake.stats().accept(t0 + year);
    let mut leapt = frame().await;
    while leapt.0 == t0 + 1000 {
        leapt = frame().await;
    }
    assert_eq!((leapt.0, intake.stats().shown().held_by_ms), (t0 + year, 0));
    drop(intake);
    let log = tokio::task::spawn_blocking(|| running.stop()).await.unwrap().unwrap();
    let mut gaps = Vec::new();
    log.replay(0, |frame| gaps.extend((frame.gap_ms > 0).then_some(frame.gap_ms))).unwrap();
    assert_eq!(gaps, [year - 1000], "nobody could have heard anything in that year");
}

#[tokio::test]
async fn short_of_memory_telemetry_is_shed_or_waits_and_facts_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (_progress, paced) = watch::channel(Progress::default());
    let log = Segments::open(crate::disk::os(), dir.path(), 0).unwrap();
    let (intake, running) = start(log, paced, |_| {}, || None, Bounds::default(), time(&dir));
    intake.stats().memory_short.store(true, Ordering::Relaxed);
    assert_eq!(intake.offer(origin(Kind::Syslog), vec![entry("datagram")]).unwrap_err().len(), 1);
    let waits = tokio::spawn(intake.append(origin(Kind::Syslog), vec![entry("acknowledged")]));
    let fact = intake.append(origin(Kind::Fact), vec![entry("{}")]).await.unwrap();
    let state = intake.append(origin(Kind::Status), vec![entry("{}")]).await.unwrap();
    assert!(state >= fact && !waits.is_finished());
    intake.stats().memory_short.store(false, Ordering::Relaxed);
    assert!(waits.await.unwrap().unwrap() > state);
    intake.offer(origin(Kind::Syslog), vec![entry("datagram")]).unwrap();
    drop(intake);
    tokio::task::spawn_blocking(|| running.stop()).await.unwrap().unwrap();
}

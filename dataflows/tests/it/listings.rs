//! Complete listings withdraw what they lack; the brake holds those that lack too much.

use radarflow_proto::fact::{Actor, Fact, Role, RunDecision};
use radarflow_proto::record::SourceKind;
use radarflow_proto::rows::{Alert, StateRow};
use radarflow_reconcile::identity::name::uid;

use crate::harness::*;

/// A run that lists NetBox items, ten a page, and ends.
fn listing(run: &mut Run, name: &str, ids: &[usize], complete: bool, approved: bool) {
    let item = |id: &usize| netbox(&id.to_string(), &format!("10.0.{}.{}", id / 250, id % 250 + 1), 1, "");
    listing_of(run, name, &ids.iter().map(item).collect::<Vec<_>>(), complete, approved);
}

/// The same, of any items.
pub(crate) fn listing_of(run: &mut Run, name: &str, items: &[String], complete: bool, approved: bool) {
    for (page, items) in items.chunks(10).enumerate() {
        run.tick(vec![staged(name, page as u32, "t", items)]);
    }
    run.tick(vec![listed(name, items.len().div_ceil(10) as u32, complete, approved)]);
    // A released run is read a share a frame.
    (0..items.len() / 2 + 3).for_each(|_| {
        run.tick(vec![]);
    });
}

fn decide(run: &str, release: bool, command: &str) -> Input {
    fact(&Fact::RunDecision(RunDecision {
        tenant: "t".into(),
        kind: SourceKind::NetBox,
        instance: "main".into(),
        run: run.into(),
        release,
        actor: Actor { name: "ann".into(), role: Role::Operator },
        reason: "a filter was wrong".into(),
        command_id: command.into(),
    }))
}

fn run() -> Run {
    let mut run = Run::new(2);
    run.tick(instances());
    run
}

fn netbox_uid(id: usize) -> String {
    uid("default", &format!("netbox:{id}"))
}

fn brake(run: &Run) -> Option<Alert> {
    let mut alerts =
        run.tables.state.values().filter_map(|r| if let StateRow::Alert(a) = r { Some(&**a) } else { None });
    alerts.rfind(|a| a.rule == "brake-held" && a.status != "resolved").cloned()
}

fn refused(run: &Run, command: &str) -> Option<String> {
    let mut outcomes = run.outputs_seen.iter().flat_map(|o| &o.outcomes);
    outcomes.rfind(|o| o.command_id == command).expect("it was judged").refused.clone()
}

#[test]
fn s40_a_listing_that_breaks_off_deletes_nothing() {
    let mut run = run();
    listing(&mut run, "r1", &(0..40).collect::<Vec<_>>(), true, false);
    assert_eq!(run.tables.devices().len(), 40);
    // Page 3 fails: what came is taken, what did not come is not gone.
    listing(&mut run, "r2", &(0..20).chain(90..95).collect::<Vec<_>>(), false, false);
    assert_eq!(run.tables.devices().len(), 45);
    // A complete one takes away what it lacks, what the broken one had brought included.
    listing(&mut run, "r3", &(1..40).collect::<Vec<_>>(), true, false);
    assert_eq!(run.tables.devices().len(), 39);
    assert!(!run.tables.uids().contains(&netbox_uid(0)));
    // Listed again with the content and the time it had, it is there again.
    listing(&mut run, "r4", &(0..40).collect::<Vec<_>>(), true, false);
    assert_eq!((run.tables.devices().len(), brake(&run)), (40, None));
}

#[test]
fn a_listing_that_was_given_up_or_came_in_parts_deletes_nothing() {
    let mut run = run();
    listing(&mut run, "r1", &(0..40).collect::<Vec<_>>(), true, false);
    // Its pages came; its end came after they had been discarded for their age.
    let page = |n: u32| staged("r2", n, "t", &[netbox("1", "10.0.0.2", 1, "")]);
    run.tick(vec![page(0), page(1)]);
    run.tick_after(16 * 60_000, vec![]);
    run.tick(vec![listed("r2", 2, true, false)]);
    // So did the end of one whose last page came when the others were gone; and an end that came twice.
    run.tick(vec![staged("r3", 0, "t", &[netbox("1", "10.0.0.2", 1, "")])]);
    run.tick_after(16 * 60_000, vec![]);
    run.tick(vec![staged("r3", 1, "t", &[netbox("1", "10.0.0.2", 1, "")]), listed("r3", 2, true, false)]);
    run.tick(vec![listed("r3", 2, true, false)]);
    (0..5).for_each(|_| drop(run.tick(vec![]).devices()));
    assert_eq!(run.tables.devices().len(), 40);
}

#[test]
fn an_unchanged_listing_changes_nothing() {
    let mut run = run();
    listing(&mut run, "r1", &(0..40).collect::<Vec<_>>(), true, false);
    let said = run.outputs_seen.len();
    listing(&mut run, "r2", &(0..40).collect::<Vec<_>>(), true, false);
    let changed = run.outputs_seen[said..].iter().flat_map(|o| &o.changes);
    let tables: Vec<_> = changed.map(|c| c.table).collect();
    assert!(tables.iter().all(|t| *t == radarflow_proto::rows::Table::Source), "{tables:?}");
}

#[test]
fn s41_a_listing_without_a_third_is_held_until_somebody_decides() {
    let all: Vec<usize> = (0..400).collect();
    let few: Vec<usize> = (0..280).collect();
    for release in [true, false] {
        let mut run = run();
        listing(&mut run, "r1", &all, true, false);
        listing(&mut run, "r2", &few, true, false);
        assert_eq!(run.tables.devices().len(), 400, "held");
        let alert = brake(&run).expect("somebody is told");
        assert_eq!(alert.title, "a listing of netbox/main lacks 120 of 400 items and is held");
        run.tick(vec![decide("r7", true, "c1")]);
        assert_eq!(refused(&run, "c1").as_deref(), Some("run r7 is not held; held: r2"));
        // What was sighted since stays, whatever is decided.
        listing(&mut run, "i1", &[399], false, false);
        run.tick(vec![decide("r2", release, "c2")]);
        assert_eq!((refused(&run, "c2"), brake(&run)), (None, None));
        assert_eq!(run.tables.devices().len(), if release { 281 } else { 400 });
        run.tick(vec![decide("r2", release, "c3")]);
        assert_eq!(refused(&run, "c3").as_deref(), Some("run r2 is not held; held: none"));
    }
}

#[test]
fn a_held_listing_gives_way_to_the_next_and_to_what_somebody_approved() {
    let all: Vec<usize> = (0..400).collect();
    let few: Vec<usize> = (0..280).collect();
    let mut run = run();
    listing(&mut run, "r1", &all, true, false);
    listing(&mut run, "r2", &few, true, false);
    assert!(brake(&run).is_some());
    listing(&mut run, "r3", &all, true, false);
    assert_eq!((run.tables.devices().len(), brake(&run)), (400, None));
    listing(&mut run, "r4", &few, true, true);
    assert_eq!((run.tables.devices().len(), brake(&run)), (280, None));
    // A source that suddenly has nothing.
    listing(&mut run, "r5", &[], true, false);
    assert_eq!(brake(&run).unwrap().title, "a listing of netbox/main lacks 280 of 280 items and is held");
}

#[test]
fn a_held_listing_is_still_held_after_a_restart() {
    let mut before = run();
    listing(&mut before, "r1", &(0..400).collect::<Vec<_>>(), true, false);
    listing(&mut before, "r2", &(0..280).collect::<Vec<_>>(), true, false);
    before.tick(vec![fact(&Fact::Snapshot)]);
    let start = radarflow_dataflows::worker::Start {
        epoch: before.epoch,
        gap_ms: 0,
        state: before.snapshot.clone(),
        ..Default::default()
    };
    let mut after = Run::from(3, start, before.clock_ms);
    assert_eq!(after.tables.state, before.tables.state);
    after.tick(vec![decide("r2", true, "c")]);
    assert_eq!((after.tables.devices().len(), brake(&after)), (280, None));
}

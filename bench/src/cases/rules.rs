//! The dataflow alone, two workers, with rules: log lines a second without any, with as many as fix a text each, and with one that
//! has 100,000 groups; what those take in memory; and how long it takes until a changed condition is judged for all of them.

use std::time::Duration;

use radarflow_dataflows::keyed::Restored;
use radarflow_dataflows::output::Merge;
use radarflow_dataflows::worker::{Start, Workers};
use radarflow_proto::cell::Time;
use radarflow_proto::fact::Fact;
use radarflow_proto::frame::Kind;
use radarflow_proto::resource::{Act, Command, Condition, Operation, Principal, PrincipalKind};
use serde_json::json;

use super::identity::{NOW, Run, WORKERS, resident_mib};

/// Lines of one frame.
const FRAME: usize = 2000;
/// Hosts that log: groups of the rule that groups by them.
const HOSTS: usize = 100_000;

fn start() -> Run {
    let (workers, outputs) = Workers::start(WORKERS, Start::default());
    Run { workers, outputs, merge: Merge::new(WORKERS, &Restored::new()), epoch: 0 }
}

fn command(id: &str, rules: impl Iterator<Item = (String, String)>) -> (Kind, Vec<u8>) {
    let put = |(name, query): (String, String)| {
        let fields = [("query".to_owned(), json!(query))].into();
        let (act, condition) = (Act::Put { fields }, Condition::Any);
        Operation { resource: "rules".into(), id: name, act, condition, owner: String::new() }
    };
    let command = Command {
        tenant: "default".into(),
        command_id: id.into(),
        digest: None,
        principal: Principal::of_host(PrincipalKind::System, "bench"),
        reason: "bench".into(),
        force: false,
        operations: rules.map(put).collect(),
    };
    let body = serde_json::to_vec(&Fact::Command(Box::new(command))).unwrap_or_default();
    (Kind::Fact, body)
}

/// Frames of lines, one of each host in turn.
fn lines(from: usize, n: usize) -> Vec<Vec<(Kind, Vec<u8>)>> {
    let at = Time::from_ms(NOW * 1000);
    let line = |n: usize| {
        let text = format!("<{}>1 {at} host-{} app - - - something happened", 8 + n % 8, n % HOSTS);
        (Kind::Syslog, text.into_bytes())
    };
    let all: Vec<usize> = (from..from + n).collect();
    all.chunks(FRAME).map(|chunk| chunk.iter().map(|n| line(*n)).collect()).collect()
}

fn per_host(least: usize) -> (String, String) {
    let query = format!("in:logs time:last_1h stats:\"count() as n by hostname\" having:\"n >= {least}\"");
    ("by-host".to_owned(), query)
}

pub(crate) fn run() -> anyhow::Result<()> {
    let rules = crate::size("RADARFLOW_BENCH_RULES", 10_000);
    let n = crate::size("RADARFLOW_BENCH_LINES", 400_000);
    let rate =
        |name: &str, took: Duration| crate::rate(&format!("rules: log lines through the dataflow, {name}"), n, took);

    let mut none = start();
    none.feed(lines(0, FRAME));
    rate("no rule", none.feed(lines(0, n)).1)?;
    none.workers.stop();

    let mut fixed = start();
    let before = resident_mib();
    let of_host = |n: usize| {
        let filter = format!("hostname:host-{}", n % HOSTS);
        let query = format!("in:logs {filter} time:last_10m stats:\"count() as n\" having:\"n >= 1000000\"");
        (format!("r{n}"), query)
    };
    // A command has at most a hundred operations.
    let all: Vec<usize> = (0..rules).collect();
    let commands =
        all.chunks(100).map(|part| vec![command(&format!("c{}", part[0]), part.iter().map(|n| of_host(*n)))]);
    let (_, took) = fixed.feed(commands.collect());
    crate::rate("rules: stated, a hundred a command", rules, took)?;
    rate(&format!("{rules} rules that fix a host each"), fixed.feed(lines(0, n)).1)?;
    crate::figure("rules: resident beside those", &format!("{:.0} MiB", resident_mib() - before))?;
    fixed.workers.stop();

    let mut grouped = start();
    let before = resident_mib();
    grouped.feed(vec![vec![command("a", [per_host(1_000_000)].into_iter())]]);
    rate(&format!("one rule with {HOSTS} groups"), grouped.feed(lines(0, n)).1)?;
    let beside = resident_mib() - before;
    crate::figure("rules: resident beside those groups", &format!("{beside:.0} MiB, the lines' own state included"))?;
    let (changes, took) = grouped.feed(vec![vec![command("b", [per_host(1)].into_iter())]]);
    let what = format!("{:.3} s, {changes} changes of rows: each group's alert begins", took.as_secs_f64());
    crate::figure(&format!("rules: another condition over {HOSTS} groups, until it is judged"), &what)?;
    let (changes, took) = grouped.feed(vec![vec![command("c", [per_host(1_000_000)].into_iter())]]);
    let what = format!("{:.3} s, {changes} changes of rows: each is over", took.as_secs_f64());
    crate::figure("rules: and back", &what)?;
    grouped.workers.stop();
    Ok(())
}

//! What can be wrong with a disk: calls that fail at random, or of one kind, once or until further notice; calls that take
//! long; no room; a bit that is not what it was.

use std::path::{Path, PathBuf};

use rand::RngExt;
use rand::rngs::StdRng;

/// What is asked of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Create,
    Open,
    Append,
    Sync,
    Truncate,
    Read,
    Stat,
    List,
    Rename,
    Link,
    Remove,
    MakeDir,
    SyncDir,
}

pub const CALLS: [Call; 13] = [
    Call::Create,
    Call::Open,
    Call::Append,
    Call::Sync,
    Call::Truncate,
    Call::Read,
    Call::Stat,
    Call::List,
    Call::Rename,
    Call::Link,
    Call::Remove,
    Call::MakeDir,
    Call::SyncDir,
];

/// Calls of one kind, below a folder.
#[derive(Clone, Debug)]
pub struct Rule {
    pub call: Call,
    pub under: PathBuf,
    /// They fail.
    pub fails: bool,
    /// They take so long, milliseconds.
    pub takes_ms: i64,
    /// So often; `None` is until further notice.
    pub times: Option<u32>,
}

/// What is wrong now.
#[derive(Clone, Default)]
pub struct Faults {
    rules: Vec<Rule>,
    /// So many of a thousand calls fail.
    failing: u32,
}

impl Faults {
    pub fn heal(&mut self) {
        *self = Faults::default();
    }

    pub fn failing(&mut self, of_thousand: u32) {
        self.failing = of_thousand;
    }

    pub fn add(&mut self, rule: Rule) {
        self.rules.push(rule);
    }

    /// Whether calls below a folder may fail or take long.
    pub fn touch(&self, folder: &Path) -> bool {
        let of = |rule: &Rule| folder.starts_with(&rule.under) || rule.under.starts_with(folder);
        self.failing > 0 || self.rules.iter().any(of)
    }

    /// What becomes of a call: how long it takes, and whether it fails. Without numbers only what the rules say.
    pub fn strike(&mut self, call: Call, path: &Path, rng: Option<&mut StdRng>) -> (i64, bool) {
        let (mut takes_ms, mut fails) = (0, false);
        for rule in self.rules.iter_mut().filter(|rule| rule.call == call && path.starts_with(&rule.under)) {
            if rule.times == Some(0) {
                continue;
            }
            rule.times = rule.times.map(|times| times - 1);
            takes_ms += rule.takes_ms;
            fails |= rule.fails;
        }
        let unlucky = rng.is_some_and(|rng| self.failing > 0 && rng.random_range(0..1000) < self.failing);
        (takes_ms, fails || unlucky)
    }
}

/// Any fault of one kind of call, below a folder of the data directory or anywhere in it.
pub fn any(rng: &mut StdRng, root: &Path) -> Rule {
    let folder = ["", "ledger", "snapshots", "snapshots", "staged"][rng.random_range(0..5)];
    let fails = rng.random_bool(0.6);
    Rule {
        call: CALLS[rng.random_range(0..CALLS.len())],
        under: if folder.is_empty() { root.to_owned() } else { root.join(folder) },
        fails,
        takes_ms: if fails && rng.random_bool(0.7) { 0 } else { rng.random_range(10..20_000) },
        times: if rng.random_bool(0.5) { Some(rng.random_range(1..3)) } else { None },
    }
}

//! Runs: what somebody wants looked at now, and what is said of it.
//!
//! A command is acknowledged when it comes; its result comes after what it found was delivered. Results outlive connections: the
//! newest are said again by the next one, because what was on its way when one broke nobody knows. Said twice they change nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use radarflow_proto::grpc::control_stream_request::Payload;
use radarflow_proto::grpc::{CommandAck, CommandProgress, CommandRequest, CommandResult};
use radarflow_proto::payload::{AgentJob, ProbeFound, RunJob};
use radarflow_reconcile::jobs::run::RUN;
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::schedule::{BURST, PAUSE, looks_at};
use super::{Agent, looks, now_us};

/// Runs at a time.
pub(super) const MAX_RUNS: usize = 4;
/// What is said and waits. Where there is more, how far something is goes first, then that it came, and what came of it last.
const MAX_WORDS: usize = 256;
/// Results that are said again by the next connection.
const MAX_TOLD: usize = 16;
/// How often it is said how far a run is.
const PACE: Duration = Duration::from_secs(2);

/// What the agent says of commands.
#[derive(Default)]
pub(super) struct Words {
    inner: Mutex<Inner>,
    more: Notify,
}

#[derive(Default)]
struct Inner {
    /// By number, in the order in which they are told.
    waiting: VecDeque<(u64, Payload)>,
    said: u64,
    /// Results that were said, the newest last.
    told: VecDeque<(u64, Payload)>,
}

impl Inner {
    /// Adds a word, where there is room for it or something that is worth no more.
    fn add(&mut self, word: Payload) {
        let worth = |word: &Payload| match word {
            Payload::CommandResult(_) => 2,
            Payload::CommandProgress(_) => 0,
            _ => 1,
        };
        if self.waiting.len() >= MAX_WORDS {
            let least = self.waiting.iter().enumerate().min_by_key(|(_, (_, word))| worth(word));
            let Some((at, (_, least))) = least else { return };
            if worth(least) > worth(&word) {
                return;
            }
            self.waiting.remove(at);
        }
        self.said += 1;
        self.waiting.push_back((self.said, word));
    }
}

impl Words {
    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn say(&self, word: Payload) {
        self.with(|inner| inner.add(word));
        self.more.notify_one();
    }

    /// The next with its number, which stays until it is told.
    pub(super) async fn next(&self) -> (u64, Payload) {
        loop {
            if let Some(word) = self.with(|inner| inner.waiting.front().cloned()) {
                return word;
            }
            self.more.notified().await;
        }
    }

    /// That of a number was told. It may have made room for others meanwhile.
    pub(super) fn told(&self, number: u64) {
        self.with(|inner| {
            let at = inner.waiting.iter().position(|(n, _)| *n == number);
            let word = at.and_then(|at| inner.waiting.remove(at));
            inner.told.extend(word.filter(|(_, word)| matches!(word, Payload::CommandResult(_))));
            while inner.told.len() > MAX_TOLD {
                inner.told.pop_front();
            }
        });
    }

    /// There is a new connection: the newest results are said again.
    pub(super) fn again(&self) {
        self.with(|inner| {
            let mut told = std::mem::take(&mut inner.told);
            told.append(&mut inner.waiting);
            inner.waiting = told;
        });
    }
}

/// A command, as far as what is said of it bears it.
struct Of {
    command_id: String,
    command_type: String,
}

impl Of {
    fn acknowledged(&self) -> Payload {
        Payload::CommandAck(CommandAck {
            command_id: self.command_id.clone(),
            command_type: self.command_type.clone(),
            timestamp: now_us() / 1_000_000,
            message: "command received".to_owned(),
        })
    }

    fn progress(&self, percent: usize, message: String) -> Payload {
        Payload::CommandProgress(CommandProgress {
            command_id: self.command_id.clone(),
            command_type: self.command_type.clone(),
            progress_percent: percent as i32,
            message,
            timestamp: now_us() / 1_000_000,
            payload_json: Vec::new(),
        })
    }

    fn result(&self, outcome: Result<Vec<u8>, &str>) -> Payload {
        Payload::CommandResult(CommandResult {
            command_id: self.command_id.clone(),
            command_type: self.command_type.clone(),
            success: outcome.is_ok(),
            message: outcome.as_ref().err().copied().unwrap_or("done").to_owned(),
            payload_json: outcome.unwrap_or_default(),
            timestamp: now_us() / 1_000_000,
        })
    }
}

/// Does what a command says, beside everything else.
pub(super) fn begin(agent: &Arc<Agent>, command: CommandRequest) {
    let of = Of { command_id: command.command_id, command_type: command.command_type };
    agent.words.say(of.acknowledged());
    let refuse = |why: &str| agent.words.say(of.result(Err(why)));
    let until = command.created_at.saturating_add(command.ttl_seconds);
    if command.created_at > 0 && command.ttl_seconds > 0 && now_us() / 1_000_000 > until {
        return refuse("command expired");
    }
    if of.command_type != RUN {
        return refuse("unsupported command");
    }
    let Ok(run) = serde_json::from_slice::<RunJob>(&command.payload_json) else {
        return refuse("its payload cannot be read");
    };
    let jobs = agent.told.borrow().jobs.clone();
    let Some(job) = jobs.iter().find(|job| job.job == run.job) else {
        return refuse("its job is not in this agent's configuration");
    };
    let Ok(place) = agent.runs.clone().try_acquire_owned() else {
        return refuse("agent busy: as many runs are under way as it does at a time");
    };
    let (agent, job) = (agent.clone(), job.clone());
    tokio::spawn(async move {
        let outcome = look(&agent, &of, &job, &run.targets).await;
        drop(place);
        agent.words.say(of.result(Ok(outcome)));
    });
}

/// Looks at all targets of a job, or at some of them; tells what came of it.
async fn look(agent: &Arc<Agent>, of: &Of, job: &AgentJob, asked: &[String]) -> Vec<u8> {
    let targets: Vec<String> =
        job.targets.iter().filter(|target| asked.is_empty() || asked.contains(target)).cloned().collect();
    let job = Arc::new(looks::Job::new(&AgentJob { targets: Vec::new(), ..job.clone() }));
    let all = targets.len() * job.told.ports.len().max(1);
    let (mut under_way, mut counts, mut said) = (JoinSet::new(), [0usize; 3], Instant::now());
    let mut count = |agent: &Agent, found: ProbeFound| {
        counts[match found.ok {
            Some(true) => 0,
            Some(false) => 1,
            None => 2,
        }] += 1;
        agent.waiting.push(found);
        let done: usize = counts.iter().sum();
        if said.elapsed() >= PACE {
            said = Instant::now();
            agent.words.say(of.progress(done * 100 / all.max(1), format!("{done} of {all} looks")));
        }
    };
    let mut begun = 0u32;
    for target in &targets {
        for look in looks_at(&job, target) {
            let Ok(held) = agent.places.clone().acquire_owned().await else { break };
            let agent_of = agent.clone();
            under_way.spawn(async move {
                let found = looks::look(&look, &agent_of.clients).await;
                drop(held);
                found
            });
            begun = begun.wrapping_add(1);
            if begun.is_multiple_of(BURST) {
                tokio::time::sleep(PAUSE).await;
            }
            while let Some(Ok(found)) = under_way.try_join_next() {
                count(agent, found);
            }
        }
    }
    while let Some(ended) = under_way.join_next().await {
        if let Ok(found) = ended {
            count(agent, found);
        }
    }
    let [ok, negative, unknown] = counts;
    json!({"looks": ok + negative + unknown, "ok": ok, "negative": negative, "unknown": unknown})
        .to_string()
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_came_of_commands_is_told_whatever_else_is_said() {
        let words = Words::default();
        let of = |n: usize| Of { command_id: n.to_string(), command_type: RUN.to_owned() };
        words.say(of(0).progress(1, String::new()));
        // The word that is being told goes, and no other is taken for it.
        let (first, _) = words.next().await;
        for n in 1..=MAX_WORDS {
            words.say(of(n).result(Err("no")));
            words.say(of(n).progress(1, String::new()));
        }
        words.told(first);
        for n in 1..=MAX_WORDS {
            let (number, word) = words.next().await;
            assert!(
                matches!(&word, Payload::CommandResult(result) if result.command_id == n.to_string()),
                "{n}: {word:?}"
            );
            words.told(number);
        }
    }
}

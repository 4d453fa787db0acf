//! Control streams: an agent holds one open, and by it comes what it is told: its configuration when it changes, and commands.
//!
//! ```text
//! dataflow ─► Waits ─► [the newest stream of the agent claims it] ─► ledger ─► dataflow ─► Granted to the first ─► the agent
//! ```
//! That a command leaves is on disk before it does ([`radarflow_proto::ports::CommandTurn`]). A configuration that is due goes first:
//! a command speaks of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::Stream;
use radarflow_proto::frame::Origin;
use radarflow_proto::grpc::control_stream_request::Payload;
use radarflow_proto::grpc::{CommandRequest, ControlStreamRequest, ControlStreamResponse, control_stream_response};
use radarflow_proto::payload::{AgentPush, CommandSaid, ControlWord, Said, ServiceHead};
use radarflow_proto::ports::{AgentCommand, Appender, CommandTurn};
use tokio::sync::{mpsc, watch};
use tonic::{Status, Streaming};

use super::configurations::{Configuration, Configurations, NOTHING};
use super::{Stop, entry, now_us};

/// The label of an agent's hello that names its life: what it was told in it, it tells the result of, also on another stream.
pub const LIFE: &str = "radarflow.life";
/// A control stream carries a configuration at most this often.
const PUSH_PACE: Duration = Duration::from_secs(2);
/// Bytes of a command's id.
const MAX_ID: usize = 64;
/// Bytes of what an agent says of a command in words, and of a result.
const MAX_MESSAGE: usize = 500;
const MAX_RESULT: usize = 4096;

/// An agent, as rows name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AgentName {
    pub(super) tenant: String,
    pub(super) partition: String,
    pub(super) id: String,
}

/// A command that may leave by a stream.
#[derive(Debug)]
struct Grant {
    command_id: String,
    command_type: String,
    payload: String,
    until_ms: i64,
}

impl Grant {
    fn request(self) -> CommandRequest {
        let now_ms = now_us() / 1000;
        CommandRequest {
            command_id: self.command_id,
            command_type: self.command_type,
            payload_json: self.payload.into_bytes(),
            // From now on, by whichever clock.
            ttl_seconds: ((self.until_ms - now_ms + 999) / 1000).max(1),
            created_at: now_ms / 1000,
        }
    }
}

/// Commands that wait for a stream of their agent, and those that may leave by a stream. The dataflow bounds how many there are.
#[derive(Default)]
pub struct Commands {
    of: Mutex<Waiting>,
    changed: watch::Sender<u64>,
    streams: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    of: BTreeMap<AgentName, BTreeSet<String>>,
    /// By stream, of those that are open.
    granted: BTreeMap<String, Vec<Grant>>,
    /// The streams of an agent, by the order in which they began. One that broke may look open for a while: only the newest claims.
    streams: BTreeMap<AgentName, BTreeSet<u64>>,
}

impl Commands {
    fn with<T>(&self, act: impl FnOnce(&mut Waiting) -> T) -> T {
        act(&mut self.of.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes in what an epoch says.
    pub fn learn(&self, changes: &[AgentCommand]) {
        if changes.is_empty() {
            return;
        }
        self.with(|waiting| {
            for AgentCommand { tenant, partition, agent_id, command_id, turn } in changes {
                let agent = AgentName { tenant: tenant.clone(), partition: partition.clone(), id: agent_id.clone() };
                match turn {
                    CommandTurn::Waits => drop(waiting.of.entry(agent).or_default().insert(command_id.clone())),
                    CommandTurn::Withdrawn => {
                        if let Some(of) = waiting.of.get_mut(&agent) {
                            of.remove(command_id);
                            if of.is_empty() {
                                waiting.of.remove(&agent);
                            }
                        }
                    }
                    // Where the stream is gone, or was another process's, nobody gets it: it leaves once or not at all.
                    CommandTurn::Granted { stream, command_type, payload, until_ms } => {
                        if let Some(granted) = waiting.granted.get_mut(stream) {
                            granted.push(Grant {
                                command_id: command_id.clone(),
                                command_type: command_type.clone(),
                                payload: payload.clone(),
                                until_ms: *until_ms,
                            });
                        }
                    }
                }
            }
        });
        self.changed.send_modify(|n| *n += 1);
    }

    /// One that waits for an agent and was not claimed yet; of those that do not wait any more nobody needs to know.
    fn next(&self, open: &Open, claimed: &mut BTreeSet<String>) -> Option<String> {
        self.with(|waiting| {
            let none = BTreeSet::new();
            let of = waiting.of.get(&open.agent).unwrap_or(&none);
            claimed.retain(|id| of.contains(id));
            let newest = waiting.streams.get(&open.agent).and_then(|streams| streams.last());
            of.iter().find(|id| newest == Some(&open.number) && !claimed.contains(*id)).cloned()
        })
    }

    fn granted(&self, stream: &str) -> Vec<Grant> {
        self.with(|waiting| waiting.granted.get_mut(stream).map(std::mem::take).unwrap_or_default())
    }

    /// A stream of an agent begins; it has a name that none had before it.
    fn open(self: &Arc<Self>, agent: &AgentName) -> Open {
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", now_us());
        self.with(|waiting| {
            waiting.granted.insert(name.clone(), Vec::new());
            waiting.streams.entry(agent.clone()).or_default().insert(number);
        });
        Open { commands: self.clone(), agent: agent.clone(), number, name }
    }
}

/// A stream that is open until this is dropped.
struct Open {
    commands: Arc<Commands>,
    agent: AgentName,
    number: u64,
    name: String,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.commands.with(|waiting| {
            waiting.granted.remove(&self.name);
            if let Some(streams) = waiting.streams.get_mut(&self.agent) {
                streams.remove(&self.number);
                if streams.is_empty() {
                    waiting.streams.remove(&self.agent);
                }
            }
        });
        // Another may be the newest now.
        self.commands.changed.send_modify(|n| *n += 1);
    }
}

type Answers = mpsc::Sender<Result<ControlStreamResponse, Status>>;

/// A control stream that is held open.
pub(super) struct Held {
    pub(super) agent: AgentName,
    pub(super) configurations: Arc<Configurations>,
    pub(super) commands: Arc<Commands>,
    pub(super) appender: Arc<dyn Appender>,
    pub(super) origin: Arc<Origin>,
    pub(super) peer: Option<SocketAddr>,
    /// A sign of life of the agent.
    pub(super) alive: AgentPush,
    /// The configuration that it holds.
    pub(super) version: String,
    /// The life of an agent that tells results on later streams.
    pub(super) life: Option<String>,
    pub(super) stop: Stop,
}

impl Held {
    /// The stream of what the agent is told. It stays open until the agent leaves or we stop.
    pub(super) fn stream(
        self,
        incoming: Streaming<ControlStreamRequest>,
    ) -> Pin<Box<dyn Stream<Item = Result<ControlStreamResponse, Status>> + Send>> {
        let (end, open) = mpsc::channel(1);
        tokio::spawn(self.hold(incoming, end));
        Box::pin(tokio_stream::wrappers::ReceiverStream::new(open))
    }

    /// Whether it is on disk.
    async fn say(&self, push: AgentPush) -> bool {
        self.appender.append(self.origin.clone(), vec![entry(self.peer, push.with(b""))]).await.is_ok()
    }

    async fn word(&self, word: ControlWord) -> bool {
        self.say(AgentPush { control: Some(word.into()), ..self.alive.clone() }).await
    }

    fn told(&self) -> Arc<Configuration> {
        let told = self.configurations.of(&self.agent.tenant, Some(&self.agent.partition), &self.agent.id);
        told.unwrap_or_else(|| Configuration::new(NOTHING.into()).into())
    }

    async fn hold(self, mut incoming: Streaming<ControlStreamRequest>, end: Answers) {
        let open = self.commands.open(&self.agent);
        let life = self.life.clone().unwrap_or_else(|| open.name.clone());
        self.word(ControlWord::Opened { life: life.clone() }).await;
        self.serve(&open, &life, &mut incoming, &end).await;
        drop(open);
        drop(end);
        // Whoever has no life beyond its stream tells nothing any more of what it was told by it.
        if self.life.is_none() {
            self.word(ControlWord::Cut { life }).await;
        }
    }

    async fn serve(&self, open: &Open, life: &str, incoming: &mut Streaming<ControlStreamRequest>, end: &Answers) {
        let (mut configured, mut commanded) = (self.configurations.subscribe(), self.commands.changed.subscribe());
        let (mut version, mut claimed) = (self.version.clone(), BTreeSet::new());
        let mut stop = self.stop.clone();
        let mut next = tokio::time::Instant::now();
        let answer = async |payload| end.send(Ok(ControlStreamResponse { payload: Some(payload) })).await.is_ok();
        loop {
            let told = self.told();
            let due = told.version != version && &*told.content != NOTHING;
            for grant in self.commands.granted(&open.name) {
                if !answer(control_stream_response::Payload::Command(grant.request())).await {
                    return;
                }
            }
            if !due && let Some(command_id) = self.commands.next(open, &mut claimed) {
                let (stream, life) = (open.name.clone(), life.to_owned());
                match self.word(ControlWord::Claimed { command_id: command_id.clone(), stream, life }).await {
                    true => drop(claimed.insert(command_id)),
                    // What is not on disk is claimed by nobody.
                    false => tokio::time::sleep(PUSH_PACE).await,
                }
                continue;
            }
            tokio::select! {
                message = incoming.message() => match message {
                    Ok(Some(message)) => self.hear(message).await,
                    _ => return,
                },
                () = stop.told() => return,
                () = tokio::time::sleep_until(next), if due => {
                    // What it is by now.
                    let told = self.told();
                    if !answer(control_stream_response::Payload::Config(told.response())).await {
                        return;
                    }
                    version.clone_from(&told.version);
                    next = tokio::time::Instant::now() + PUSH_PACE;
                }
                still = configured.changed(), if !due => {
                    if still.is_err() {
                        return;
                    }
                }
                still = commanded.changed() => {
                    if still.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// What the agent says is a sign of life, whatever it is.
    async fn hear(&self, message: ControlStreamRequest) {
        let said = match message.payload {
            Some(Payload::CommandAck(ack)) => {
                CommandSaid { command_id: ack.command_id, message: ack.message, ..CommandSaid::default() }
            }
            Some(Payload::CommandProgress(progress)) => CommandSaid {
                command_id: progress.command_id,
                what: Said::Progress,
                message: progress.message,
                percent: progress.progress_percent,
                payload: None,
            },
            Some(Payload::CommandResult(result)) => CommandSaid {
                command_id: result.command_id,
                what: if result.success { Said::Done } else { Said::Failed },
                message: result.message,
                percent: 100,
                payload: Some(result.payload_json)
                    .filter(|payload| !payload.is_empty() && payload.len() <= MAX_RESULT)
                    .and_then(|payload| String::from_utf8(payload).ok()),
            },
            _ => {
                self.say(self.alive.clone()).await;
                return;
            }
        };
        if said.command_id.len() > MAX_ID {
            let kind = format!("the id of a command has more than {MAX_ID} bytes");
            let head = ServiceHead { kind, source: "refused".to_owned(), ..ServiceHead::default() };
            self.say(AgentPush { service: Some(head), ..self.alive.clone() }).await;
            return;
        }
        let message = said.message.chars().take(MAX_MESSAGE).collect();
        self.word(ControlWord::Said(CommandSaid { message, ..said })).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(command_id: &str, turn: CommandTurn) -> AgentCommand {
        AgentCommand {
            tenant: "t".to_owned(),
            partition: "dc1".to_owned(),
            agent_id: "a".to_owned(),
            command_id: command_id.to_owned(),
            turn,
        }
    }

    #[test]
    fn what_waits_is_claimed_once_a_stream_and_leaves_by_the_stream_that_it_is_granted() {
        let commands = Arc::new(Commands::default());
        let agent = AgentName { tenant: "t".into(), partition: "dc1".into(), id: "a".into() };
        let other = AgentName { partition: "dc2".into(), ..agent.clone() };
        let (one, elsewhere) = (commands.open(&agent), commands.open(&other));
        assert_ne!(one.name, elsewhere.name);
        commands.learn(&[change("1", CommandTurn::Waits), change("2", CommandTurn::Waits)]);
        let mut claimed = BTreeSet::new();
        assert_eq!(commands.next(&elsewhere, &mut BTreeSet::new()), None);
        for expected in ["1", "2"] {
            let next = commands.next(&one, &mut claimed).unwrap();
            assert_eq!(next, expected);
            claimed.insert(next);
        }
        assert_eq!(commands.next(&one, &mut claimed), None);
        // A stream that came later claims; one that looks open still does not.
        let two = commands.open(&agent);
        assert_eq!(commands.next(&one, &mut BTreeSet::new()), None);
        assert_eq!(commands.next(&two, &mut BTreeSet::new()).as_deref(), Some("1"));
        let granted = |stream: &str| CommandTurn::Granted {
            stream: stream.to_owned(),
            command_type: "x".to_owned(),
            payload: "{}".to_owned(),
            until_ms: i64::MAX / 2,
        };
        commands.learn(&[change("1", CommandTurn::Withdrawn), change("1", granted(&one.name))]);
        commands.learn(&[change("3", granted("of another process"))]);
        assert_eq!(commands.granted(&two.name).len(), 0);
        assert_eq!(commands.granted(&one.name).len(), 1);
        assert_eq!(commands.granted(&one.name).len(), 0, "it leaves once");
        assert_eq!(commands.next(&one, &mut claimed), None);
        assert_eq!(claimed.iter().collect::<Vec<_>>(), ["2"], "of what waits no more nothing is kept");
        let gone = two.name.clone();
        drop(two);
        commands.learn(&[change("2", CommandTurn::Withdrawn), change("2", granted(&gone))]);
        assert!(commands.granted(&gone).is_empty());
        commands.learn(&[change("4", CommandTurn::Waits)]);
        assert_eq!(commands.next(&one, &mut claimed).as_deref(), Some("4"), "it is the newest again");
        commands.learn(&[change("4", CommandTurn::Withdrawn)]);
        drop(elsewhere);
        assert!(
            commands
                .with(|waiting| { waiting.of.is_empty() && waiting.granted.len() == 1 && waiting.streams.len() == 1 })
        );
    }
}

//! Commands: what somebody has agents do at once, and how it goes.
//!
//! ```text
//!            claimed by a connection       the agent says …
//! queued ───────────────────────► sent ───► acknowledged ───► running ───► finished │ failed
//!   └──────────── cancelled │ expired ◄──────────────┴────────────┘
//! ```
//! *Dispatched once.* A command leaves by the connection that claims it first; that it may leave is decided here, at an epoch that is
//! on disk, so a server that dies after it sends it no second time. One that died between this and sending never sent it: it expires.
//!
//! *One final state.* What is said of a command that is over changes nothing: two agents of one name, an answer that comes twice or
//! late. Only the agent that a command is for speaks of it, and not before it was sent.
//!
//! *Lives.* An agent that was started anew, or whose connection carries its results and broke, tells no result of what it was told
//! before: these commands fail.
//!
//! Bounded: commands of a tenant, those of an agent that are not over, and what is kept of each.

use std::collections::BTreeMap;

use radarflow_proto::cell::Time;
use radarflow_proto::payload::{CommandSaid, ControlWord, Said};
use radarflow_proto::ports::{AgentCommand, CommandTurn};
use radarflow_proto::resource::{Resource, Taken};
use radarflow_proto::rows::{Command, StateRow};
use radarflow_reconcile::jobs::run::{Order, Run};
use serde::{Deserialize, Serialize};

use crate::health::AgentKey;
use crate::keyed::{Clock, Machine, Tick};

/// Commands of a tenant that are kept; the oldest that are over go first, and beyond that none is taken.
pub const MAX_COMMANDS: usize = 2000;
/// Commands of an agent that are not over.
pub const MAX_OPEN: usize = 16;
/// What one takes at most, bytes: its texts, the targets that were asked for, and its result; here and as a row.
pub const COMMAND_BYTES: usize = 24 << 10;
/// A command that is over is kept for so long, milliseconds.
const KEPT_MS: i64 = 24 * 3600 * 1000;
/// What is sent may be acknowledged for so long, however late it was sent, milliseconds.
const ACKNOWLEDGED_MS: i64 = 30_000;
/// The result comes within this of the last that was heard of it, milliseconds: a sweep of ServiceRadar's agent takes 20 minutes.
pub const RESULT_MS: i64 = 25 * 60 * 1000;
/// Bytes of a result that are kept, and of what is said in words.
const MAX_RESULT: usize = 4096;
const MAX_MESSAGE: usize = 500;

/// A command as it is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Asked {
    partition: String,
    run_id: String,
    profile: String,
    asked: Vec<String>,
    by: String,
    at_us: i64,
    ttl_ms: i64,
    command_id: String,
    agent_id: String,
    command_type: String,
    payload: String,
    targets: u64,
    refused: Option<String>,
}

impl Asked {
    pub(super) fn new(partition: &str, run: &Run, order: Order) -> Self {
        Asked {
            partition: partition.to_owned(),
            run_id: run.id.clone(),
            profile: run.profile.clone(),
            asked: run.targets.iter().cloned().collect(),
            by: run.by.clone(),
            at_us: run.at_us,
            ttl_ms: run.ttl_ms,
            command_id: order.command_id,
            agent_id: order.agent_id,
            command_type: order.command_type,
            payload: order.payload,
            targets: order.targets as u64,
            refused: order.refused,
        }
    }
}

/// What happens to commands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum CommandEvent {
    /// One is asked for.
    Asked(Box<Asked>),
    /// Those of a profile that are not over are to end: of a run, or all.
    Cancelled {
        /// The profile.
        profile: String,
        /// The run.
        run_id: Option<String>,
        /// Who ends them.
        by: String,
    },
    /// A gateway or an agent speaks.
    Word(Word),
}

/// What a gateway says of an agent's connection, or the agent by it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Word {
    /// The agent, as the gateway knows it.
    pub agent: AgentKey,
    /// What.
    pub word: ControlWord,
}

impl CommandEvent {
    /// Of a step that was taken; `None` where it is another.
    pub(super) fn cancelled(taken: &Taken) -> Option<Self> {
        if taken.action != "cancel" {
            return None;
        }
        let said = Resource { fields: taken.fields.clone(), ..(*taken.resource).clone() };
        let run_id = said.text("run_id").map(str::to_owned);
        Some(CommandEvent::Cancelled { profile: taken.resource.id.clone(), run_id, by: taken.by.clone() })
    }
}

/// A command as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    row: Command,
    payload: String,
    /// The life of the agent in which it was sent.
    life: Option<String>,
}

impl Kept {
    fn is_over(&self) -> bool {
        self.row.finished_at.is_some()
    }

    fn waits(&self) -> bool {
        self.row.state == "queued"
    }

    fn is_of(&self, agent: &AgentKey) -> bool {
        self.row.agent_id == agent.agent_id && self.row.partition == agent.partition
    }

    /// It was sent, and its result is still to come.
    fn is_out(&self) -> bool {
        self.life.is_some() && !self.is_over()
    }

    fn end(&mut self, state: &str, reason: Option<String>, tick: &Tick) {
        self.row.state = state.to_owned();
        self.row.reason = reason;
        self.row.finished_at = Some(Time::from_ms(tick.clock_ms));
    }

    /// When something becomes of it by itself, milliseconds since 1970.
    fn due_ms(&self) -> i64 {
        match self.row.finished_at {
            Some(at) => at.ms().saturating_add(KEPT_MS),
            None => self.row.expires_at.ms(),
        }
    }

    fn expire(&mut self, tick: &Tick) {
        let reason = match self.row.state.as_str() {
            "queued" => "the agent was not connected",
            "sent" => "the agent did not acknowledge it",
            _ => "the agent told no result",
        };
        self.end("expired", Some(reason.to_owned()), tick);
    }

    /// The agent speaks of it.
    fn hear(&mut self, said: &CommandSaid, tick: &Tick) {
        let now = Time::from_ms(tick.clock_ms);
        let message = Some(cut(&said.message, MAX_MESSAGE)).filter(|message| !message.is_empty());
        self.row.acknowledged_at.get_or_insert(now);
        self.row.expires_at = Time::from_ms(tick.clock_ms.saturating_add(RESULT_MS));
        match said.what {
            Said::Acknowledged => {
                if self.row.state == "sent" {
                    self.row.state = "acknowledged".to_owned();
                }
            }
            Said::Progress => {
                self.row.state = "running".to_owned();
                self.row.progress = self.row.progress.max(i64::from(said.percent.clamp(0, 100)));
                self.row.reason = message;
            }
            Said::Done | Said::Failed => {
                self.row.result = said.payload.clone().filter(|payload| payload.len() <= MAX_RESULT);
                if said.what == Said::Done {
                    self.row.progress = 100;
                    self.end("finished", None, tick);
                } else {
                    let reason = message.unwrap_or_else(|| "the agent does not say why".to_owned());
                    self.end("failed", Some(reason), tick);
                }
            }
        }
    }
}

/// The beginning of a text.
fn cut(text: &str, most: usize) -> String {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// The commands of a tenant, in the order in which they were asked for.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct CommandsState {
    next: u64,
    /// By number.
    all: BTreeMap<u64, Kept>,
    /// Their numbers.
    numbers: BTreeMap<String, u64>,
}

/// What is said of commands.
#[derive(Clone)]
pub(super) enum CommandOut {
    /// A row appears or goes.
    Row(StateRow, isize),
    /// The gateway is told.
    Turn(AgentCommand),
}

fn turn(tenant: &str, row: &Command, turn: CommandTurn) -> CommandOut {
    CommandOut::Turn(AgentCommand {
        tenant: tenant.to_owned(),
        partition: row.partition.clone(),
        agent_id: row.agent_id.clone(),
        command_id: row.command_id.clone(),
        turn,
    })
}

/// What an epoch makes of a tenant's commands.
struct Step<'a> {
    tenant: &'a str,
    tick: &'a Tick,
    state: &'a mut CommandsState,
    /// As they were: those that were touched.
    before: BTreeMap<u64, Option<Kept>>,
    granted: Vec<CommandOut>,
}

impl Step<'_> {
    /// Changes one that is there.
    fn with(&mut self, number: u64, change: impl FnOnce(&mut Kept)) {
        if let Some(kept) = self.state.all.get_mut(&number) {
            self.before.entry(number).or_insert_with(|| Some(kept.clone()));
            change(kept);
        }
    }

    /// Those that are like this.
    fn like(&self, is: impl Fn(&Kept) -> bool) -> Vec<u64> {
        self.state.all.iter().filter(|(_, kept)| is(kept)).map(|(number, _)| *number).collect()
    }

    fn forget(&mut self, number: u64) {
        if let Some(kept) = self.state.all.remove(&number) {
            self.state.numbers.remove(&kept.row.command_id);
            self.before.entry(number).or_insert(Some(kept));
        }
    }

    fn asked(&mut self, asked: Asked) {
        // The same one again.
        if self.state.numbers.contains_key(&asked.command_id) {
            return;
        }
        let open = self.like(|kept| {
            !kept.is_over() && kept.row.agent_id == asked.agent_id && kept.row.partition == asked.partition
        });
        let crowded = (open.len() >= MAX_OPEN).then(|| format!("{MAX_OPEN} commands of this agent are not over"));
        if self.state.all.len() >= MAX_COMMANDS
            && let Some(over) = self.state.all.iter().find(|(_, kept)| kept.is_over()).map(|(number, _)| *number)
        {
            self.forget(over);
        }
        let number = self.state.next;
        self.state.next += 1;
        let full = self.state.all.len() >= MAX_COMMANDS;
        let mut kept = Kept {
            row: Command {
                tenant_id: self.tenant.to_owned(),
                partition: asked.partition,
                command_id: asked.command_id,
                run_id: asked.run_id,
                profile: asked.profile,
                agent_id: asked.agent_id,
                command_type: asked.command_type,
                state: "queued".to_owned(),
                reason: None,
                targets: asked.targets as i64,
                asked: asked.asked,
                progress: 0,
                result: None,
                requested_by: asked.by,
                requested_at: Time(asked.at_us),
                expires_at: Time(asked.at_us.saturating_add(asked.ttl_ms.saturating_mul(1000))),
                sent_at: None,
                acknowledged_at: None,
                finished_at: None,
                epoch: 0,
            },
            payload: asked.payload,
            life: None,
        };
        let full = full.then(|| format!("{MAX_COMMANDS} commands are not over"));
        if let Some(why) = asked.refused.or(crowded).or(full) {
            kept.end("failed", Some(why), self.tick);
        }
        self.before.entry(number).or_insert(None);
        self.state.numbers.insert(kept.row.command_id.clone(), number);
        self.state.all.insert(number, kept);
    }

    fn cancelled(&mut self, profile: &str, run_id: Option<&str>, by: &str) {
        let is = |kept: &Kept| {
            !kept.is_over() && kept.row.profile == profile && run_id.is_none_or(|run_id| kept.row.run_id == run_id)
        };
        let tick = *self.tick;
        for number in self.like(is) {
            self.with(number, |kept| {
                let reason = match kept.life {
                    Some(_) => format!("cancelled by {by}; the agent had it already"),
                    None => format!("cancelled by {by}"),
                };
                kept.end("cancelled", Some(reason), &tick);
            });
        }
    }

    fn word(&mut self, Word { agent, word }: &Word) {
        let tick = *self.tick;
        match word {
            ControlWord::Opened { life } => {
                let out = self.like(|kept| kept.is_out() && kept.is_of(agent) && kept.life.as_ref() != Some(life));
                self.lost(out);
            }
            ControlWord::Cut { life } => {
                let out = self.like(|kept| kept.is_out() && kept.is_of(agent) && kept.life.as_ref() == Some(life));
                self.lost(out);
            }
            ControlWord::Claimed { command_id, stream, life } => {
                let Some(number) = self.state.numbers.get(command_id).copied() else { return };
                let waits = |kept: &&Kept| kept.waits() && kept.is_of(agent) && kept.due_ms() > tick.clock_ms;
                if self.state.all.get(&number).is_none_or(|kept| !waits(&kept)) {
                    return;
                }
                self.with(number, |kept| {
                    let row = &mut kept.row;
                    row.state = "sent".to_owned();
                    row.sent_at = Some(Time::from_ms(tick.clock_ms));
                    row.expires_at = row.expires_at.max(Time::from_ms(tick.clock_ms.saturating_add(ACKNOWLEDGED_MS)));
                    kept.life = Some(life.clone());
                });
                let Some(kept) = self.state.all.get(&number) else { return };
                let granted = CommandTurn::Granted {
                    stream: stream.clone(),
                    command_type: kept.row.command_type.clone(),
                    payload: kept.payload.clone(),
                    until_ms: kept.row.expires_at.ms(),
                };
                self.granted.push(turn(self.tenant, &kept.row, granted));
            }
            ControlWord::Said(said) => {
                let Some(number) = self.state.numbers.get(&said.command_id).copied() else { return };
                if self.state.all.get(&number).is_some_and(|kept| kept.is_out() && kept.is_of(agent)) {
                    self.with(number, |kept| kept.hear(said, &tick));
                }
            }
        }
    }

    fn lost(&mut self, numbers: Vec<u64>) {
        let tick = *self.tick;
        for number in numbers {
            self.with(number, |kept| {
                let why =
                    "the agent, or its connection, was lost before it told a result; whether it did it is not known";
                kept.end("failed", Some(why.to_owned()), &tick);
            });
        }
    }

    /// What is over by the clock.
    fn expire(&mut self) {
        let tick = *self.tick;
        for number in self.like(|kept| kept.due_ms() <= tick.clock_ms) {
            if self.state.all.get(&number).is_some_and(Kept::is_over) {
                self.forget(number);
            } else {
                self.with(number, |kept| kept.expire(&tick));
            }
        }
    }

    /// Says what is otherwise.
    fn say(self, out: &mut Vec<CommandOut>) {
        for (number, was) in self.before {
            let is = self.state.all.get(&number);
            let (waited, waits) = (was.as_ref().is_some_and(Kept::waits), is.is_some_and(Kept::waits));
            if waited != waits
                && let Some(kept) = is.or(was.as_ref())
            {
                let to = if waits { CommandTurn::Waits } else { CommandTurn::Withdrawn };
                out.push(turn(self.tenant, &kept.row, to));
            }
            if was.as_ref().map(|kept| &kept.row) != is.map(|kept| &kept.row) {
                out.extend(was.map(|kept| CommandOut::Row(kept.row.into(), -1)));
                out.extend(is.map(|kept| CommandOut::Row(kept.row.clone().into(), 1)));
            }
        }
        out.extend(self.granted);
    }
}

/// Commands, by tenant.
pub(super) struct Commands;

impl Machine for Commands {
    type Key = String;
    type Event = CommandEvent;
    type State = CommandsState;
    type Output = CommandOut;
    const NAME: &'static str = "commands";
    // What people were promised holds while the server is down, too.
    const CLOCK: Clock = Clock::Wall;

    fn step(
        &mut self,
        tick: &Tick,
        tenant: &String,
        state: &mut Option<CommandsState>,
        events: Vec<CommandEvent>,
        out: &mut Vec<CommandOut>,
    ) {
        // Of whom nothing was asked, nothing is remembered, whatever is said.
        if state.is_none() && !events.iter().any(|event| matches!(event, CommandEvent::Asked(_))) {
            return;
        }
        let of = state.get_or_insert_default();
        let mut step = Step { tenant, tick, state: of, before: BTreeMap::new(), granted: Vec::new() };
        step.expire();
        for event in events {
            match event {
                CommandEvent::Asked(asked) => step.asked(*asked),
                CommandEvent::Cancelled { profile, run_id, by } => step.cancelled(&profile, run_id.as_deref(), &by),
                CommandEvent::Word(word) => step.word(&word),
            }
        }
        step.say(out);
        if of.all.is_empty() {
            *state = None;
        }
    }

    fn due_ms(&self, state: &CommandsState) -> Option<i64> {
        state.all.values().map(Kept::due_ms).min()
    }

    fn restored(&mut self, tenant: &String, state: &CommandsState, out: &mut Vec<CommandOut>) {
        for kept in state.all.values() {
            out.push(CommandOut::Row(kept.row.clone().into(), 1));
            if kept.waits() {
                out.push(turn(tenant, &kept.row, CommandTurn::Waits));
            }
        }
    }
}

//! Dead letters: messages that their receiver did not take. They are kept for a time, and sent again when somebody asks: to the
//! address that the receiver has then, which may have been mended.

use std::collections::BTreeMap;

use radarflow_proto::cell::Time;
use radarflow_proto::fact::Receiver;
use radarflow_proto::payload::DueNotification;
use radarflow_proto::ports::Outcome;
use radarflow_proto::rows::DeadLetter;
use serde::{Deserialize, Serialize};

use super::groups::{Settled, notification, partition_of, status};
use crate::keyed::{Clock, Machine, Tick, encode};
use crate::output::DerivedRow;

/// Dead letters of one receiver; the oldest go.
pub const MAX_LETTERS: usize = 200;
/// Bytes of them, and one however large; the oldest go.
pub const LETTER_BYTES: usize = 1 << 20;
/// After how long one goes, milliseconds.
pub const LETTER_MS: i64 = 7 * 86_400_000;

/// Whose letters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LetterKey {
    /// Customer.
    pub tenant: String,
    /// The receiver.
    pub receiver: String,
}

/// What moves them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum LetterEvent {
    /// The receiver is this now, or is no more.
    Address(Option<Receiver>),
    /// A message is dead, and why.
    Dead(DueNotification, String),
    /// A message arrived or is dead, perhaps one that was sent again.
    Settled(Settled),
    /// Somebody wants them sent again: names the command.
    Replay(String),
}

/// What letters say.
#[derive(Clone)]
pub(super) enum LetterOut {
    Due(DueNotification),
    Settled(String),
    Row(DeadLetter, isize),
    Happened(DerivedRow),
    Outcome(Outcome),
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Letter {
    due: DueNotification,
    reason: String,
    died_ms: i64,
    replaying: bool,
    bytes: usize,
}

impl Letter {
    fn row(&self) -> DeadLetter {
        DeadLetter {
            tenant_id: self.due.tenant.clone(),
            partition: partition_of(&self.due),
            receiver: self.due.receiver.name.clone(),
            notification_id: self.due.id.clone(),
            group_key: self.due.group_key.clone(),
            status: status(&self.due).to_owned(),
            alert_ids: self.due.alerts.iter().map(|alert| alert.id.clone()).collect(),
            reason: self.reason.clone(),
            died_at: Time::from_ms(self.died_ms),
            replaying: self.replaying,
            epoch: 0,
        }
    }
}

/// What is kept of a receiver.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct OfReceiver {
    receiver: Option<Receiver>,
    /// By when they died, and by name: they are sent again in that order.
    letters: BTreeMap<(i64, String), Letter>,
}

/// Keeps them.
pub(super) struct Letters;

impl Machine for Letters {
    type Key = LetterKey;
    type Event = LetterEvent;
    type State = OfReceiver;
    type Output = LetterOut;
    const NAME: &'static str = "letters";
    const CLOCK: Clock = Clock::Wall;

    fn step(
        &mut self,
        tick: &Tick,
        key: &LetterKey,
        state: &mut Option<OfReceiver>,
        events: Vec<LetterEvent>,
        out: &mut Vec<LetterOut>,
    ) {
        let now = Time::from_ms(tick.clock_ms);
        let OfReceiver { receiver, letters } = state.get_or_insert_default();
        let mut before: BTreeMap<(i64, String), Option<DeadLetter>> = BTreeMap::new();
        for event in events {
            match event {
                LetterEvent::Address(now) => {
                    for letter in letters.values_mut().filter(|letter| letter.replaying) {
                        if let Some(now) = now.as_ref().filter(|now| letter.due.receiver != **now) {
                            letter.due.receiver = now.clone();
                            out.push(LetterOut::Due(letter.due.clone()));
                        }
                    }
                    *receiver = now;
                }
                LetterEvent::Dead(due, reason) => {
                    let at = (tick.clock_ms, due.id.clone());
                    before.entry(at.clone()).or_insert_with(|| letters.get(&at).map(Letter::row));
                    let bytes = encode(&due).len();
                    letters.insert(at, Letter { due, reason, died_ms: tick.clock_ms, replaying: false, bytes });
                }
                LetterEvent::Settled(Settled { id, delivered, detail }) => {
                    let found = letters.iter().find(|((_, name), letter)| *name == id && letter.replaying);
                    let Some(at) = found.map(|(at, _)| at.clone()) else { continue };
                    let Some(letter) = letters.get_mut(&at) else { continue };
                    before.entry(at.clone()).or_insert_with(|| Some(letter.row()));
                    let outcome = if delivered { "delivered" } else { "failed" };
                    out.push(LetterOut::Happened(notification(&letter.due, outcome, &detail, now)));
                    out.push(LetterOut::Settled(id));
                    if delivered {
                        letters.remove(&at);
                    } else {
                        (letter.replaying, letter.reason) = (false, detail);
                    }
                }
                LetterEvent::Replay(command_id) => {
                    let refused = match receiver {
                        None => Some(format!("there is no receiver {}", key.receiver)),
                        Some(_) if letters.is_empty() => Some(format!("receiver {} has no dead letters", key.receiver)),
                        Some(_) => None,
                    };
                    let sent = letters.iter_mut().filter(|(_, letter)| !letter.replaying);
                    for ((at, letter), address) in sent.zip(receiver.iter().cycle()) {
                        before.entry(at.clone()).or_insert_with(|| Some(letter.row()));
                        letter.replaying = true;
                        letter.due.receiver = address.clone();
                        out.push(LetterOut::Happened(notification(&letter.due, "due", "replayed", now)));
                        out.push(LetterOut::Due(letter.due.clone()));
                    }
                    out.push(LetterOut::Outcome(Outcome { command_id, refused }));
                }
            }
        }
        let mut bytes: usize = letters.values().map(|letter| letter.bytes).sum();
        while letters.len() > MAX_LETTERS
            || (bytes > LETTER_BYTES && letters.len() > 1)
            || letters.first_key_value().is_some_and(|((died, _), _)| died + LETTER_MS <= tick.clock_ms)
        {
            let Some((at, letter)) = letters.pop_first() else { break };
            bytes -= letter.bytes;
            if letter.replaying {
                out.push(LetterOut::Settled(letter.due.id.clone()));
            }
            before.entry(at).or_insert_with(|| Some(letter.row()));
        }
        for (at, was) in before {
            let is = letters.get(&at).map(Letter::row);
            if was != is {
                out.extend(was.map(|row| LetterOut::Row(row, -1)));
                out.extend(is.map(|row| LetterOut::Row(row, 1)));
            }
        }
        if letters.is_empty() && receiver.is_none() {
            *state = None;
        }
    }

    fn due_ms(&self, state: &OfReceiver) -> Option<i64> {
        state.letters.first_key_value().map(|((died, _), _)| died + LETTER_MS)
    }

    fn again(&mut self, _key: &LetterKey, state: &mut Option<OfReceiver>, event: LetterEvent) {
        if let LetterEvent::Address(receiver) = event {
            state.get_or_insert_default().receiver = receiver;
        }
    }

    fn restored(&mut self, _key: &LetterKey, state: &OfReceiver, out: &mut Vec<LetterOut>) {
        for letter in state.letters.values() {
            out.push(LetterOut::Row(letter.row(), 1));
            out.extend(letter.replaying.then(|| LetterOut::Due(letter.due.clone())));
        }
    }
}

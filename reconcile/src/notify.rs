//! When a group of alerts is told to a receiver: grouping as Alertmanager does it, as a pure state machine.
//!
//! A new group waits `group_wait` for company. After a message, a changed group waits `group_interval`; an unchanged
//! one that still burns is told again after `repeat_interval`, less what somebody took. At most one message of a group is under
//! way; what happens meanwhile goes into the next.
//!
//! *Sent implies resolved*: an alert that a receiver was told burns is told over, once, whatever happened in between;
//! one whose firing was never sent, or that is new and already over, is told only if the receiver was told of it. An alert that
//! is held is not told, and it is not over either: its end is told all the same, at once, to whom its beginning was.
//! Where an alert goes from one group of a receiver to another, the group that it leaves tells its end, unless the receiver knows
//! alerts by themselves ([`ReceiverKind::knows_alerts`]): then the other group owes it the end.
//!
//! An Alertmanager forgets what nobody says again. So what it was told burns is said again each [`REFRESH_MS`], held or not.
//!
//! Of each alert a group says how it stands with it ([`Notice`]): that is what `alert_notifications` shows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use radarflow_proto::fact::ReceiverKind;
use radarflow_proto::payload::{DueNotification, NotifiedAlert};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::routing::{Address, Entry, Hold};

/// Alerts one message tells of; the rest are in the next.
pub const MAX_ALERTS: usize = 1000;
/// For how long the end of an alert is told again that did not arrive, milliseconds.
const LOST_MS: i64 = 7 * 86_400_000;
/// After how long an Alertmanager is told again what burns, milliseconds.
pub const REFRESH_MS: i64 = 60_000;
/// Why such a message is made, in words.
pub const REFRESH: &str = "still firing";
/// For how long it is told that that burns: a few messages may be lost.
pub const AHEAD_MS: i64 = 4 * REFRESH_MS;

/// How a group stands with an alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Where that stands.
    pub state: NoticeState,
    /// Why.
    pub reason: String,
    /// Until when, where it ends by the clock, milliseconds since 1970.
    pub until_ms: Option<i64>,
    /// What the receiver was told last.
    pub told: Option<Telling>,
    /// The route that leads there.
    pub route: String,
}

/// Where an alert stands in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoticeState {
    /// It is in the next message.
    Waiting,
    /// It is in the message under way.
    Sending,
    /// There is nothing to tell that was not told.
    Told,
    /// It is not told now.
    Held,
}

impl NoticeState {
    /// As rows spell it.
    pub fn name(self) -> &'static str {
        match self {
            NoticeState::Waiting => "waiting",
            NoticeState::Sending => "sending",
            NoticeState::Told => "told",
            NoticeState::Held => "held",
        }
    }
}

/// What a receiver was told of an alert, or is being told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Telling {
    /// That it burns, or that it is over.
    pub burns: bool,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
    /// By which message.
    pub message: String,
    /// That message did not arrive, as far as is known: it is told again, and so is its end.
    pub lost: bool,
}

/// A notice that is otherwise: the alert, the notice before and after.
pub type NoticeChange = (NotifiedAlert, Option<Notice>, Option<Notice>);

/// What a group knows about one alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Member {
    alert: NotifiedAlert,
    taken: bool,
    hold: Option<Hold>,
    told: Option<Telling>,
    /// Another group of the receiver may have told that it burns, and left its end to this one.
    owed: bool,
    /// The notice as it was said last.
    said: Option<Notice>,
}

impl Member {
    fn burns(&self) -> bool {
        self.alert.ends_at_ms.is_none()
    }

    fn was_told_burning(&self) -> bool {
        self.told.as_ref().is_some_and(|told| told.burns)
    }

    /// Whether the receiver may believe that it burns.
    fn owes_end(&self) -> bool {
        self.was_told_burning() || self.owed
    }

    /// Whether there is something to tell: that it burns, or that what was told burning is over.
    fn is_news(&self) -> bool {
        let lost = self.told.as_ref().is_some_and(|told| told.lost);
        match self.burns() {
            true => self.hold.is_none() && (!self.was_told_burning() || lost),
            false => self.owes_end(),
        }
    }

    /// Whether it is told again.
    fn repeats(&self) -> bool {
        self.burns() && self.hold.is_none() && !self.taken
    }

    /// Whether an Alertmanager must hear of it lest it forgets.
    fn refreshes(&self) -> bool {
        self.burns() && self.owes_end()
    }
}

/// One receiver's group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Whom to tell, and how.
    pub address: Arc<Address>,
    members: BTreeMap<String, Member>,
    /// Members with news.
    news: BTreeSet<String>,
    /// Members that are told again; those that are refreshed.
    repeating: u64,
    refreshing: u64,
    /// When the first untold change came.
    changed_ms: Option<i64>,
    /// When the last message was made that was no refresh.
    sent_ms: Option<i64>,
    /// When the last message was made.
    said_ms: Option<i64>,
    /// The message under way.
    pending: Option<DueNotification>,
    /// News did not fit into the last message: the next is due as soon as that has arrived.
    more: bool,
    /// Messages made so far.
    sequence: u64,
    /// Members whose notice may be otherwise.
    #[serde(skip)]
    touched: BTreeSet<String>,
    /// Members that are no more, with what was said of them.
    #[serde(skip)]
    gone: Vec<(NotifiedAlert, Notice)>,
    /// What the notices of all that waits hang on, as it was when they were said last.
    #[serde(skip)]
    pace_said: Option<PaceSaid>,
}

/// When what waits is told, whether a message is under way, whether there was one before.
type PaceSaid = (Option<i64>, bool, bool);

/// Why a message is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    New,
    Changed,
    Repeat,
    Refresh,
}

impl Why {
    fn text(self) -> &'static str {
        match self {
            Why::New => "new group",
            Why::Changed => "group changed",
            Why::Repeat => "repeat",
            Why::Refresh => REFRESH,
        }
    }
}

impl Group {
    /// An empty group.
    pub fn new(address: Arc<Address>) -> Self {
        Group {
            address,
            members: BTreeMap::new(),
            news: BTreeSet::new(),
            repeating: 0,
            refreshing: 0,
            changed_ms: None,
            sent_ms: None,
            said_ms: None,
            pending: None,
            more: false,
            sequence: 0,
            touched: BTreeSet::new(),
            gone: Vec::new(),
            pace_said: None,
        }
    }

    /// A group as an older build left it: its alerts and what of each was told, when it changed and was told, its message under
    /// way.
    pub fn resumed(
        address: Arc<Address>,
        alerts: Vec<(NotifiedAlert, Option<bool>)>,
        (changed_ms, sent_ms): (Option<i64>, Option<i64>),
        pending: Option<DueNotification>,
        sequence: u64,
    ) -> Self {
        let mut group = Group::new(address);
        let message = pending.as_ref().map(|due| due.id.clone()).unwrap_or_default();
        let at_ms = sent_ms.unwrap_or_default();
        for (alert, told) in alerts {
            let told = told.map(|burns| Telling { burns, at_ms, message: message.clone(), lost: false });
            group.change(&alert.id.clone(), at_ms, |_| {
                Some(Member { alert, taken: false, hold: None, told, owed: false, said: None })
            });
        }
        (group.changed_ms, group.sent_ms, group.said_ms) = (changed_ms, sent_ms, sent_ms);
        (group.pending, group.sequence) = (pending, sequence);
        group.notices();
        group
    }

    /// An alert belongs to it in this form; another group of the receiver had it, or not.
    pub fn tell(&mut self, entry: &Entry, elsewhere: bool, now_ms: i64) {
        self.address = entry.address.clone();
        let elsewhere = elsewhere && self.address.receiver.kind.knows_alerts();
        if elsewhere {
            // Who forgets hears of it again, told here or not.
            self.said_ms.get_or_insert(now_ms);
        }
        self.change(&entry.alert.id, now_ms, |member| {
            let (told, owed, said) = member.map_or((None, false, None), |m| (m.told, m.owed, m.said));
            let (alert, taken, hold) = (entry.alert.clone(), entry.taken, entry.hold.clone());
            Some(Member { alert, taken, hold, told, owed: owed || elsewhere, said })
        });
    }

    /// An alert belongs to it no more: it is over, or goes elsewhere; another group of the receiver has it, or not.
    pub fn over(&mut self, id: &str, elsewhere: bool, now_ms: i64) {
        let elsewhere = elsewhere && self.address.receiver.kind.knows_alerts();
        self.change(id, now_ms, |member| {
            let mut member = member?;
            member.alert.ends_at_ms.get_or_insert(now_ms);
            if elsewhere {
                (member.told, member.owed) = (None, false);
            }
            Some(member)
        });
    }

    fn count(&mut self, id: &str, there: bool) {
        let Some(member) = self.members.get(id) else { return };
        let (repeats, refreshes) = (u64::from(member.repeats()), u64::from(member.refreshes()));
        if there {
            self.repeating += repeats;
            self.refreshing += refreshes;
            if member.is_news() {
                self.news.insert(id.to_owned());
            }
        } else {
            self.repeating -= repeats;
            self.refreshing -= refreshes;
            self.news.remove(id);
        }
    }

    fn change(&mut self, id: &str, now_ms: i64, of: impl FnOnce(Option<Member>) -> Option<Member>) {
        self.count(id, false);
        let member = of(self.members.remove(id));
        // What is over is dropped unless the receiver believes that it burns and wants to know.
        let kept = |m: &Member| m.burns() || (m.owes_end() && self.address.receiver.send_resolved);
        match member {
            Some(member) if kept(&member) => drop(self.members.insert(id.to_owned(), member)),
            Some(Member { alert, said: Some(said), .. }) => self.gone.push((alert, said)),
            _ => {}
        }
        self.count(id, true);
        self.touched.insert(id.to_owned());
        if self.news.is_empty() {
            self.changed_ms = None;
        } else {
            self.changed_ms.get_or_insert(now_ms);
        }
    }

    /// When what is untold is told, and why; none while a message is under way.
    fn next(&self) -> Option<(i64, Why)> {
        if self.pending.is_some() {
            return None;
        }
        let pace = &self.address.pace;
        let changed = self.changed_ms.map(|at| match self.sent_ms {
            None => (at + pace.wait_ms, Why::New),
            Some(sent) if self.more => (sent, Why::Changed),
            Some(sent) => (at.max(sent + pace.interval_ms), Why::Changed),
        });
        let repeat = self.sent_ms.filter(|_| self.repeating > 0).map(|sent| (sent + pace.repeat_ms, Why::Repeat));
        let forgets = self.address.receiver.kind == ReceiverKind::AlertmanagerApi && self.refreshing > 0;
        let refresh = self.said_ms.filter(|_| forgets).map(|said| (said + REFRESH_MS, Why::Refresh));
        [changed, repeat, refresh].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// When time alone would make a message, milliseconds since 1970.
    pub fn due_ms(&self) -> Option<i64> {
        self.next().map(|(at, _)| at)
    }

    /// Makes the message that is due, if any; it stays pending until [`Group::delivered`].
    pub fn fire(&mut self, now_ms: i64) -> Option<&DueNotification> {
        let (_, why) = self.next().filter(|(due, _)| *due <= now_ms)?;
        let told = |id: &&String| {
            let member = &self.members[*id];
            match why {
                Why::New | Why::Changed => member.burns() && member.hold.is_none(),
                Why::Repeat => member.repeats(),
                // Those that were said again lately have been in the message before this one.
                Why::Refresh => {
                    let since = member.told.as_ref().map_or(REFRESH_MS, |told| now_ms - told.at_ms);
                    member.refreshes() && since >= REFRESH_MS / 2
                }
            }
        };
        // News first: what does not fit is old and waits for the next message.
        let with_news = matches!(why, Why::New | Why::Changed);
        let news = self.news.iter().filter(|_| with_news);
        let others = self.members.keys().filter(told).filter(|id| !(with_news && self.news.contains(*id)));
        let mut others: Vec<&String> = others.collect();
        // What was told the longest ago is told first.
        others.sort_by_key(|id| (self.members[*id].told.as_ref().map(|told| told.at_ms), *id));
        let rest = (with_news && self.news.len() > MAX_ALERTS) || (why == Why::Refresh && others.len() > MAX_ALERTS);
        let ids: Vec<String> = news.chain(others).take(MAX_ALERTS).cloned().collect();
        if ids.is_empty() && why == Why::Refresh {
            self.said_ms = Some(now_ms);
        }
        let first = ids.first().and_then(|id| self.members.get(id)).map(|m| m.alert.fingerprint.clone())?;
        self.sequence += 1;
        self.said_ms = Some(if why == Why::Refresh && rest { now_ms - REFRESH_MS } else { now_ms });
        self.more = rest && with_news;
        if why != Why::Refresh {
            self.sent_ms = Some(now_ms);
        }
        // Two groups of a receiver may tell of one alert at once: each message has a name of its own.
        let group = hex::encode(&Sha256::digest(self.address.group_key.as_bytes())[..4]);
        let message = format!("{}-{}-{first}-{now_ms}-{group}", self.address.receiver.name, self.sequence);
        let mut alerts = Vec::with_capacity(ids.len());
        for id in &ids {
            alerts.push(self.members[id].alert.clone());
            self.change(id, now_ms, |member| {
                let mut member = member?;
                let burns = member.burns();
                member.told = Some(Telling { burns, at_ms: now_ms, message: message.clone(), lost: false });
                member.owed = false;
                Some(member)
            });
        }
        self.changed_ms = (!self.news.is_empty()).then_some(now_ms);
        self.pending = Some(DueNotification {
            id: message,
            tenant: self.address.receiver.tenant.clone(),
            receiver: self.address.receiver.clone(),
            group_key: self.address.group_key.clone(),
            group_labels: self.address.labels.clone(),
            alerts,
            reason: why.text().to_owned(),
            at_ms: now_ms,
        });
        self.pending.as_ref()
    }

    /// The message under way, if its receiver is another by now: it goes where the others go.
    pub fn readdressed(&mut self) -> Option<&DueNotification> {
        let pending = self.pending.as_mut().filter(|pending| pending.receiver != self.address.receiver)?;
        pending.receiver = self.address.receiver.clone();
        Some(pending)
    }

    /// The message under way.
    pub fn pending(&self) -> Option<&DueNotification> {
        self.pending.as_ref()
    }

    /// The message of that id arrived, or is dead. `None` if no such message is under way.
    pub fn delivered(&mut self, id: &str) -> Option<DueNotification> {
        let pending = self.pending.take_if(|pending| pending.id == id)?;
        self.touched.extend(pending.alerts.iter().map(|alert| alert.id.clone()));
        Some(pending)
    }

    /// A message that was under way is dead. What it said counts as unsaid: it is told again at the group's pace, an end for a week.
    pub fn lost(&mut self, due: &DueNotification, now_ms: i64) {
        for alert in &due.alerts {
            let told = Telling { burns: true, at_ms: due.at_ms, message: due.id.clone(), lost: true };
            self.change(&alert.id, now_ms, |member| match member {
                Some(mut member) => {
                    if member.told.as_ref().is_some_and(|told| told.message == due.id) {
                        member.told = Some(told);
                    }
                    Some(member)
                }
                None => {
                    let ended = alert.ends_at_ms.filter(|at| now_ms - at < LOST_MS)?;
                    let alert = NotifiedAlert { ends_at_ms: Some(ended), ..alert.clone() };
                    Some(Member { alert, taken: false, hold: None, told: Some(told), owed: false, said: None })
                }
            });
        }
    }

    /// Whether nothing is left to remember.
    pub fn is_over(&self) -> bool {
        self.members.is_empty() && self.pending.is_none()
    }

    /// Notices that are otherwise than they were said last.
    pub fn notices(&mut self) -> Vec<NoticeChange> {
        let mut changes: Vec<NoticeChange> =
            std::mem::take(&mut self.gone).into_iter().map(|(alert, said)| (alert, Some(said), None)).collect();
        // When what waits is told hangs on all of the group.
        let mut touched = std::mem::take(&mut self.touched);
        let next = self.next().map(|(at, _)| at);
        let pace = (next, self.pending.is_some(), self.sent_ms.is_some());
        if self.pace_said.replace(pace) != Some(pace) {
            touched.extend(self.news.iter().cloned());
        }
        for id in touched {
            let Some(member) = self.members.get(&id) else { continue };
            let notice = self.notice(member, next);
            let Some(member) = self.members.get_mut(&id) else { continue };
            if member.said.as_ref() != Some(&notice) {
                changes.push((member.alert.clone(), member.said.replace(notice.clone()), Some(notice)));
            }
        }
        changes
    }

    /// Every notice as it was said last.
    pub fn said(&self) -> impl Iterator<Item = (&NotifiedAlert, &Notice)> {
        self.members.values().filter_map(|member| Some((&member.alert, member.said.as_ref()?)))
    }

    fn notice(&self, member: &Member, next: Option<i64>) -> Notice {
        let under_way = |pending: &DueNotification| {
            member.told.as_ref().is_some_and(|told| told.message == pending.id && told.burns == member.burns())
        };
        let (told, route) = (member.told.clone(), self.address.route.clone());
        if let Some(pending) = self.pending.as_ref().filter(|pending| under_way(pending)) {
            return Notice { state: NoticeState::Sending, reason: pending.reason.clone(), until_ms: None, told, route };
        }
        if member.is_news() {
            let reason = match (self.pending.is_some(), self.sent_ms, member.burns()) {
                (true, ..) => "a message of its group is under way",
                (_, None, _) => "its group waits for company",
                (_, _, true) => "its group is paced",
                (_, _, false) => "it is over, and its group is paced",
            };
            return Notice { state: NoticeState::Waiting, reason: reason.to_owned(), until_ms: next, told, route };
        }
        if let Some(hold) = &member.hold {
            return Notice { state: NoticeState::Held, reason: hold.why.clone(), until_ms: hold.until_ms, told, route };
        }
        let reason =
            if member.taken { "acknowledged: it is not told again" } else { "told; it is told again if it lasts" };
        let repeat = self.sent_ms.filter(|_| !member.taken).map(|sent| sent + self.address.pace.repeat_ms);
        Notice { state: NoticeState::Told, reason: reason.to_owned(), until_ms: repeat, told, route }
    }
}

#[cfg(test)]
mod tests;

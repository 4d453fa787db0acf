//! The User-based Security Model (RFC 3414) for who receives notifications.
//!
//! Of a trap the *sender* is the authority: its engine's id, boots and time are in the message, and its keys are those of that
//! engine. Of an inform, and of everything else that wants an answer, *we* are: whoever sends one asks us first who we are and
//! what time it is (discovery), and we answer with a report.
//!
//! ```text
//!            ┌ no engine named ─► report: this is who I am
//! message ──►┤ our engine ─► user ─► level ─► digest ─► our time ──────┐
//!            └ another's  ─► user ─► level ─► digest ─► time of theirs ─┴─► decrypted ─► trap, or inform and its answer
//!                              each step may refuse: kept with the reason, and reported to who wants to be told
//! ```
//! What is believed of another engine's time is learnt from authentic messages alone, and so are keys kept: strangers make no
//! state. Both are bounded by [`MAX_ENGINES`]; beyond them the engine goes that was not heard for longest. It is known again by its
//! next message, and what was said by it in the past could be said again by somebody who kept it: so it is after a start, too.
//!
//! A message has to be as secure as its user can: somebody who knows a name and no password says nothing in that name.

mod keys;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

pub use self::keys::{Auth, MIN_PASSWORD, MasterKey, Privacy};
use super::ber::{built, expect, put_tlv, whole};
use super::v3::{AUTHENTIC, Header, MAX_ENGINE, MAX_NUMBER, MAX_USER, Message, PRIVATE, REPORTABLE, Scoped};
use super::{COUNTER32, INFORM, INTEGER, OCTETS, OID, REPORT, RESPONSE, SEQUENCE, SnmpError, TRAP_V2, opened, refused};
use crate::wire::{Cursor, uint};

/// Users of one tenant.
pub const MAX_USERS: usize = 256;
/// Engines of others whose time is known.
pub const MAX_ENGINES: usize = 4096;
/// Users of one engine whose keys are kept.
const KEYS_OF_ENGINE: usize = 4;
/// What an engine takes that is known, with its keys, about.
pub const ENGINE_BYTES: usize = 256 + KEYS_OF_ENGINE * 256;
/// Seconds that a message may be late, or its clock wrong (RFC 3414 section 2.2.3).
const WINDOW_S: u32 = 150;

/// How well a message is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Not at all.
    NoAuthNoPriv = 1,
    /// It is authentic.
    AuthNoPriv = 2,
    /// It is authentic, and came encrypted.
    AuthPriv = 3,
}

impl Level {
    pub(super) fn of(number: u64) -> Result<Self, SnmpError> {
        let all = [Level::NoAuthNoPriv, Level::AuthNoPriv, Level::AuthPriv];
        all.into_iter().find(|level| *level as u64 == number).ok_or(SnmpError::Range("the security level"))
    }

    /// As the RFCs call it.
    pub fn name(self) -> &'static str {
        match self {
            Level::NoAuthNoPriv => "noAuthNoPriv",
            Level::AuthNoPriv => "authNoPriv",
            Level::AuthPriv => "authPriv",
        }
    }

    fn flags(self) -> u8 {
        match self {
            Level::NoAuthNoPriv => 0,
            Level::AuthNoPriv => AUTHENTIC,
            Level::AuthPriv => AUTHENTIC | PRIVATE,
        }
    }
}

/// Who may say something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name, 32 octets at most.
    pub name: String,
    /// At which engine alone; at all where nothing is said. An inform is at ours.
    pub engine: Option<Vec<u8>>,
    /// How messages are authenticated, and the key for it.
    pub auth: Option<(Auth, MasterKey)>,
    /// How they are encrypted; not without `auth`.
    pub privacy: Option<(Privacy, MasterKey)>,
}

/// What makes a user.
#[derive(Clone, Debug, Default)]
pub struct UserConfig<'a> {
    /// Its name.
    pub name: &'a str,
    /// At which engine alone, hex digits.
    pub engine: Option<&'a str>,
    /// The name of an algorithm, and a password.
    pub auth: Option<(&'a str, &'a str)>,
    /// The same.
    pub privacy: Option<(&'a str, &'a str)>,
}

impl User {
    /// Makes one; passwords are hashed for a while.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(of: &UserConfig<'_>) -> Result<Self, String> {
        of.check()?;
        let auth = of.auth.and_then(|(name, password)| Some((named(&Auth::NAMES, name).ok()?, password)));
        let auth = auth.map(|(auth, password)| (auth, auth.key(password.as_bytes())));
        let privacy = of.privacy.zip(auth.as_ref()).and_then(|((name, password), (auth, _))| {
            Some((named(&Privacy::NAMES, name).ok()?, auth.key(password.as_bytes())))
        });
        let engine = of.engine.and_then(|engine| hex::decode(engine).ok());
        Ok(User { name: of.name.to_owned(), engine, auth, privacy })
    }

    fn level(&self) -> Level {
        match (&self.auth, &self.privacy) {
            (None, _) => Level::NoAuthNoPriv,
            (Some(_), None) => Level::AuthNoPriv,
            (Some(_), Some(_)) => Level::AuthPriv,
        }
    }

    fn auth_key(&self, engine: &[u8]) -> Option<(Auth, Vec<u8>)> {
        self.auth.as_ref().map(|(auth, master)| (*auth, master.localized(*auth, engine)))
    }

    /// All of them; those for privacy may take as long as a password.
    fn keys(&self, engine: &[u8]) -> Keys {
        let privacy = self.privacy.as_ref().zip(self.auth.as_ref());
        let privacy =
            privacy.map(|((privacy, master), (auth, _))| (*privacy, privacy.localized(*auth, master, engine)));
        Keys { auth: self.auth_key(engine), privacy }
    }
}

impl UserConfig<'_> {
    /// What is wrong with it.
    ///
    /// # Errors
    /// The first thing that is.
    pub fn check(&self) -> Result<(), String> {
        if self.name.is_empty() || self.name.len() > MAX_USER {
            return Err(format!("a user's name has 1 to {MAX_USER} octets"));
        }
        if let Some(engine) = self.engine {
            let read = hex::decode(engine).ok().filter(|engine| (5..=MAX_ENGINE).contains(&engine.len()));
            read.ok_or(format!("`{engine}` is no engine: those have 5 to {MAX_ENGINE} octets, two hex digits each"))?;
        }
        if let Some((name, _)) = self.auth {
            named(&Auth::NAMES, name)?;
        }
        if let Some((name, _)) = self.privacy {
            named(&Privacy::NAMES, name)?;
        }
        if self.privacy.is_some() && self.auth.is_none() {
            return Err("what is encrypted is authenticated, too: `auth` is missing".to_owned());
        }
        let short = |said: Option<(&str, &str)>| said.is_some_and(|(_, password)| password.len() < MIN_PASSWORD);
        if short(self.auth) || short(self.privacy) {
            return Err(format!("a password has at least {MIN_PASSWORD} octets"));
        }
        Ok(())
    }
}

fn named<T: Copy>(names: &[(&str, T)], name: &str) -> Result<T, String> {
    let found = names.iter().find(|(known, _)| *known == name).map(|(_, what)| *what);
    let all = || names.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    found.ok_or_else(|| format!("`{name}` is not known: {}", all()))
}

/// A user's keys at an engine.
struct Keys {
    auth: Option<(Auth, Vec<u8>)>,
    privacy: Option<(Privacy, Vec<u8>)>,
}

/// Our own engine.
#[derive(Debug)]
pub struct Engine {
    id: Vec<u8>,
    boots: u32,
    salts: AtomicU64,
}

impl Engine {
    /// An engine that was started so often. `salt` is some number that is another at each start.
    pub fn new(id: Vec<u8>, boots: u32, salt: u64) -> Self {
        Engine { id, boots, salts: AtomicU64::new(salt) }
    }

    /// Its id.
    pub fn id(&self) -> &[u8] {
        &self.id
    }
}

/// What came of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// A notification: what is kept of it, and the answer that is owed once it is durable.
    Notification {
        /// What [`super::parse`] reads.
        kept: Vec<u8>,
        /// The answer.
        answer: Option<Vec<u8>>,
    },
    /// A question that comes before an inform.
    Question {
        /// The answer to it.
        report: Vec<u8>,
    },
    /// Refused, or no message of v3 at all.
    Refused {
        /// What [`super::parse`] gives the reason of.
        kept: Vec<u8>,
        /// What its sender is told, if it wants to be.
        report: Option<Vec<u8>>,
    },
}

/// What reports count (RFC 3414 section 5): the last arc but one of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Level = 1,
    Time = 2,
    User = 3,
    Engine = 4,
    Digest = 5,
    Decryption = 6,
}

/// Why a message is refused.
struct Refusal {
    reason: String,
    fault: Option<Fault>,
    /// It may be how its sender learns the time.
    asks_time: bool,
}

impl Refusal {
    fn of(fault: Fault, reason: String) -> Self {
        Refusal { reason, fault: Some(fault), asks_time: false }
    }
}

impl From<SnmpError> for Refusal {
    fn from(error: SnmpError) -> Self {
        Refusal { reason: error.to_string(), fault: None, asks_time: false }
    }
}

/// What is known of another engine.
#[derive(Default)]
struct Known {
    boots: u32,
    /// The newest time that it said, and when it did.
    time: u32,
    at_s: u32,
    /// Its keys by the place of the user.
    keys: Vec<(usize, Arc<Keys>)>,
    /// The number of the message that it was last heard by.
    heard: u64,
}

#[derive(Default)]
struct Engines {
    known: BTreeMap<Vec<u8>, Known>,
    heard: u64,
}

impl Engines {
    /// An engine that somebody authentic spoke of; the one that was not heard for longest may go for it. Of a new one the time is
    /// nought from now on.
    fn hear(&mut self, engine: &[u8], now_s: u32) -> &mut Known {
        if self.known.len() >= MAX_ENGINES && !self.known.contains_key(engine) {
            let quiet = self.known.iter().min_by_key(|(_, known)| known.heard).map(|(engine, _)| engine.clone());
            quiet.and_then(|engine| self.known.remove(&engine));
        }
        self.heard += 1;
        let new = || Known { at_s: now_s, ..Known::default() };
        let known = self.known.entry(engine.to_vec()).or_insert_with(new);
        known.heard = self.heard;
        known
    }
}

/// Opens messages for the users of one tenant.
pub struct Usm {
    own: Arc<Engine>,
    users: RwLock<Arc<Vec<User>>>,
    engines: Mutex<Engines>,
    faults: [AtomicU32; 7],
}

impl Usm {
    /// Opens messages for these users.
    pub fn new(own: Arc<Engine>, users: Vec<User>) -> Self {
        let (users, engines) = (RwLock::new(Arc::new(users)), Mutex::default());
        Usm { own, users, engines, faults: Default::default() }
    }

    /// From now on for these. What is known of engines is kept, less the keys.
    pub fn exchange(&self, users: Vec<User>) {
        let mut engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        engines.known.values_mut().for_each(|known| known.keys.clear());
        *self.users.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(users);
    }

    /// The users there are.
    pub fn users(&self) -> Arc<Vec<User>> {
        self.users.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a datagram says that it is a message of v3.
    pub fn is_meant(bytes: &[u8]) -> bool {
        let version = || expect(&mut expect(&mut Cursor::new(bytes), SEQUENCE, "").ok()?, INTEGER, "").ok();
        version().is_some_and(|version| uint(version.rest()) == 3)
    }

    /// Opens a message. `now_s` is our engine's time: seconds since the start.
    pub fn receive(&self, bytes: &[u8], now_s: u32) -> Received {
        let refuse = |reason: &str, report| Received::Refused { kept: refused(reason, bytes), report };
        let message = match Message::read(bytes) {
            Ok(message) => message,
            Err(error) => return refuse(&error.to_string(), None),
        };
        let is_ours = message.engine == self.own.id;
        match self.open(bytes, &message, is_ours, now_s) {
            Ok(received) => received,
            Err(Refusal { reason, fault, asks_time }) => {
                // Who means another engine than ours and wants an answer has to be told of ours, whatever else is wrong.
                let fault = if is_ours { fault } else { Some(Fault::Engine) };
                let report = fault.filter(|_| message.is(REPORTABLE));
                let report = report.and_then(|fault| self.report(&message, fault, now_s));
                match report {
                    Some(report) if asks_time || (message.engine.is_empty()) => Received::Question { report },
                    report => refuse(&reason, report),
                }
            }
        }
    }

    fn open(&self, bytes: &[u8], message: &Message<'_>, is_ours: bool, now_s: u32) -> Result<Received, Refusal> {
        let level = match (message.is(AUTHENTIC), message.is(PRIVATE)) {
            (false, false) => Level::NoAuthNoPriv,
            (true, false) => Level::AuthNoPriv,
            (true, true) => Level::AuthPriv,
            (false, true) => return Err(SnmpError::Range("flags: encrypted and not authentic").into()),
        };
        if message.engine.is_empty() {
            return Err(Refusal::of(Fault::Engine, "no engine is named".to_owned()));
        }
        let (users, place) = self.user(message, level)?;
        let (user, at) = (&users[place], (message.boots, message.time));
        let known = self.known_keys(message.engine, &users, place);
        // Who is not authentic yet costs no more than the key that tells: the others can take a while to make.
        let auth_key = match &known {
            Some(keys) => keys.auth.clone(),
            None => user.auth_key(message.engine),
        };
        if let Some((auth, key)) = &auth_key {
            let (before, digest, after) =
                (&bytes[..message.digest.start], &bytes[message.digest.clone()], &bytes[message.digest.end..]);
            if !auth.is_signed(key, &[before, &[0; 64][..digest.len()], after], digest) {
                let reason =
                    format!("the digest is not that of user `{}`: wrong password or algorithm", shown(message));
                return Err(Refusal::of(Fault::Digest, reason));
            }
            if is_ours {
                self.check_own_time(at, now_s)?;
            } else {
                self.check_their_time(message.engine, at, now_s)?;
            }
        }
        let is_known = known.is_some() || auth_key.is_none();
        let keys = known.unwrap_or_else(|| Arc::new(user.keys(message.engine)));
        if !is_known {
            self.keep_keys(message.engine, &users, (place, &keys), now_s);
        }
        let hidden;
        let data = match &keys.privacy {
            Some((privacy, key)) => {
                let cipher = expect(&mut Cursor::new(message.data), OCTETS, "encrypted data")?.rest();
                let open = privacy.decrypt(key, at, message.salt, cipher);
                hidden = open.unwrap_or_default();
                &hidden[..]
            }
            None => message.data,
        };
        let scoped = Scoped::read(data).map_err(|error| match keys.privacy {
            Some(_) => {
                let reason = format!("it does not decrypt for user `{}`: wrong password or algorithm", shown(message));
                Refusal::of(Fault::Decryption, reason)
            }
            None => error.into(),
        })?;
        let kept = opened(message.user, message.engine, level, scoped.context, (scoped.tag, scoped.pdu));
        match scoped.tag {
            TRAP_V2 => Ok(Received::Notification { kept, answer: None }),
            INFORM if is_ours => {
                let answer = self.answer(message, level, &keys, &scoped, now_s);
                Ok(Received::Notification { kept, answer })
            }
            INFORM => {
                let (theirs, ours) = (hex::encode(message.engine), hex::encode(&self.own.id));
                Err(Refusal::of(Fault::Engine, format!("an inform for engine {theirs}; this is {ours}")))
            }
            tag => Err(SnmpError::NotATrap(tag).into()),
        }
    }

    /// The user that a message is of, by its place.
    fn user(&self, message: &Message<'_>, level: Level) -> Result<(Arc<Vec<User>>, usize), Refusal> {
        let users = self.users();
        let of = |engine: Option<&[u8]>| {
            let is = |user: &User| user.name.as_bytes() == message.user && user.engine.as_deref() == engine;
            users.iter().position(is)
        };
        let place = of(Some(message.engine)).or_else(|| of(None));
        let Some(place) = place else {
            let at = hex::encode(message.engine);
            return Err(Refusal::of(Fault::User, format!("no user `{}` of engine {at} is known", shown(message))));
        };
        let needed = users[place].level();
        if level != needed {
            let (needed, found) = (needed.name(), level.name());
            let reason = format!("the message is {found}; user `{}` says everything {needed}", shown(message));
            return Err(Refusal::of(Fault::Level, reason));
        }
        Ok((users, place))
    }

    /// The keys of a user at an engine, where they were made before; users that were exchanged meanwhile have none.
    fn known_keys(&self, engine: &[u8], users: &Arc<Vec<User>>, place: usize) -> Option<Arc<Keys>> {
        let engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(users, &self.users()) {
            return None;
        }
        let keys = &engines.known.get(engine)?.keys;
        keys.iter().find(|(of, _)| *of == place).map(|(_, keys)| keys.clone())
    }

    /// Keeps the keys of somebody who was authentic.
    fn keep_keys(&self, engine: &[u8], users: &Arc<Vec<User>>, (place, keys): (usize, &Arc<Keys>), now_s: u32) {
        let most = if engine == self.own.id { MAX_USERS } else { KEYS_OF_ENGINE };
        let mut engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(users, &self.users()) {
            return;
        }
        let known = engines.hear(engine, now_s);
        if known.keys.len() >= most {
            known.keys.remove(0);
        }
        known.keys.push((place, keys.clone()));
    }

    /// Whether a message for us is of now (RFC 3414 section 3.2, 7a).
    fn check_own_time(&self, (boots, time): (u32, u32), now_s: u32) -> Result<(), Refusal> {
        if boots == self.own.boots && boots < MAX_NUMBER && time.abs_diff(now_s) <= WINDOW_S {
            return Ok(());
        }
        let reason = format!(
            "it is of second {time} of start {boots}; this is second {now_s} of start {} (a replay, or a sender that does not \
             ask for the time)",
            self.own.boots
        );
        // Who sends nothing of either asks.
        Err(Refusal { asks_time: boots == 0 && time == 0, ..Refusal::of(Fault::Time, reason) })
    }

    /// Whether a message of another engine is newer than what is known of it (section 3.2, 7b); then that is known.
    fn check_their_time(&self, engine: &[u8], (boots, time): (u32, u32), now_s: u32) -> Result<(), Refusal> {
        let mut engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        let known = engines.hear(engine, now_s);
        if boots > known.boots || (boots == known.boots && time > known.time) {
            (known.boots, known.time, known.at_s) = (boots, time, now_s);
        }
        let their_now = known.time.saturating_add(now_s.saturating_sub(known.at_s));
        let their_boots = known.boots;
        if boots == MAX_NUMBER || boots < their_boots || time.saturating_add(WINDOW_S) < their_now {
            let of = hex::encode(engine);
            let reason = format!(
                "it is of second {time} of start {boots} of engine {of}, which is at second {their_now} of start \
                 {their_boots} (a replay, or its boots are not kept)"
            );
            return Err(Refusal::of(Fault::Time, reason));
        }
        Ok(())
    }

    /// The response to an inform.
    fn answer(&self, to: &Message<'_>, level: Level, keys: &Keys, of: &Scoped<'_>, now_s: u32) -> Option<Vec<u8>> {
        let scoped = Scoped { tag: RESPONSE, ..*of };
        self.message(to, level, keys, &scoped, now_s)
    }

    /// A report about a message: what is wrong, and how often that was so.
    fn report(&self, about: &Message<'_>, fault: Fault, now_s: u32) -> Option<Vec<u8>> {
        let count = self.faults[fault as usize].fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let mut binding = Vec::with_capacity(24);
        // usmStats: 1.3.6.1.6.3.15.1.1
        put_tlv(&mut binding, OID, &[0x2b, 6, 1, 6, 3, 15, 1, 1, fault as u8, 0]);
        put_tlv(&mut binding, COUNTER32, &whole(count & MAX_NUMBER));
        let plain = (!about.is(PRIVATE)).then(|| Scoped::read(about.data).ok()).flatten();
        let request_id = plain.as_ref().and_then(Scoped::request_id).unwrap_or(&[0]);
        let mut pdu = Vec::with_capacity(48);
        put_tlv(&mut pdu, INTEGER, request_id);
        put_tlv(&mut pdu, INTEGER, &[0]);
        put_tlv(&mut pdu, INTEGER, &[0]);
        put_tlv(&mut pdu, SEQUENCE, &built(SEQUENCE, &binding));
        let scoped = Scoped { engine: &self.own.id, context: &[], tag: REPORT, pdu: &pdu };
        // What tells the time is authentic, or anybody could tell another.
        let level = if about.is(PRIVATE) { Level::AuthPriv } else { Level::AuthNoPriv };
        let user = (fault == Fault::Time).then(|| self.user(about, level).ok()).flatten();
        let auth = user.and_then(|(users, place)| users[place].auth_key(&self.own.id));
        let level = if auth.is_some() { Level::AuthNoPriv } else { Level::NoAuthNoPriv };
        self.message(about, level, &Keys { auth, privacy: None }, &scoped, now_s)
    }

    /// A message of ours.
    fn message(&self, to: &Message<'_>, level: Level, keys: &Keys, scoped: &Scoped<'_>, now_s: u32) -> Option<Vec<u8>> {
        let (boots, time) = (self.own.boots, now_s.min(MAX_NUMBER));
        let mut salt = self.own.salts.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let data = match &keys.privacy {
            Some((privacy, key)) => {
                if *privacy == Privacy::Des {
                    // RFC 3414 section 8.1.1.1: boots, and a number.
                    salt[..4].copy_from_slice(&boots.to_be_bytes());
                }
                built(OCTETS, &privacy.encrypt(key, (boots, time), salt, scoped.write())?)
            }
            None => scoped.write(),
        };
        let salt = if keys.privacy.is_some() { &salt[..] } else { &[] };
        let digest = keys.auth.as_ref().map_or(0, |(auth, _)| auth.digest());
        let header =
            Header { id: to.id, flags: level.flags(), engine: &self.own.id, boots, time, user: to.user, digest, salt };
        let (mut message, place) = header.write(&data);
        if let Some((auth, key)) = &keys.auth {
            let digest = auth.sign(key, &[&message]);
            message[place].copy_from_slice(&digest);
        }
        Some(message)
    }
}

/// The user of a message, as it is told.
fn shown(message: &Message<'_>) -> String {
    String::from_utf8_lossy(message.user).escape_debug().to_string()
}

//! An engine that sends, made of the same parts, and what is believed of it.

use super::*;
use crate::snmp::{self, INFORM, OID, SnmpError, Trap};

const THEIRS: &[u8] = &[0x80, 0, 0x1f, 0x88, 4, b'r', b't', b'r', b'1'];
const OURS: &[u8] = &[0x80, 0, 0x7e, 0xd9, 5, 1, 2, 3];

fn user(auth: Option<&str>, privacy: Option<&str>) -> User {
    let auth = auth.map(|name| (name, "maplesyrup"));
    let privacy = privacy.map(|name| (name, "pancake-and-tea"));
    User::new(&UserConfig { name: "noc", engine: None, auth, privacy }).unwrap()
}

fn receiver(users: &[User]) -> Usm {
    Usm::new(Arc::new(Engine::new(OURS.to_vec(), 5, 1)), users.to_vec())
}

/// A linkDown of interface 3.
fn pdu(request: u8) -> Vec<u8> {
    let bind = |oid: &[u8], tag: u8, value: &[u8]| built(SEQUENCE, &[built(OID, oid), built(tag, value)].concat());
    let bindings = [
        bind(&[0x2b, 6, 1, 2, 1, 1, 3, 0], 0x43, &[77]),
        bind(&[0x2b, 6, 1, 6, 3, 1, 1, 4, 1, 0], OID, &[0x2b, 6, 1, 6, 3, 1, 1, 5, 3]),
        bind(&[0x2b, 6, 1, 2, 1, 2, 2, 1, 1, 3], INTEGER, &[3]),
    ];
    let zero = built(INTEGER, &[0]);
    [built(INTEGER, &[request]), zero.clone(), zero, built(SEQUENCE, &bindings.concat())].concat()
}

/// What somebody sends under an engine, as of a time of it.
struct Sender {
    user: User,
    engine: Vec<u8>,
    at: (u32, u32),
    flags: u8,
    tag: u8,
}

impl Sender {
    fn traps(user: &User) -> Self {
        Sender { user: user.clone(), engine: THEIRS.to_vec(), at: (3, 1000), flags: 0, tag: TRAP_V2 }
    }

    fn informs(user: &User, at: (u32, u32)) -> Self {
        Sender { user: user.clone(), engine: OURS.to_vec(), at, flags: REPORTABLE, tag: INFORM }
    }

    fn receive(&self, usm: &Usm, now_s: u32) -> Received {
        usm.receive(&self.message(), now_s)
    }

    fn message(&self) -> Vec<u8> {
        let own = Usm::new(Arc::new(Engine::new(self.engine.clone(), self.at.0, 9)), Vec::new());
        let name = self.user.name.as_bytes();
        let about = Message {
            id: 4242,
            flags: 0,
            engine: &[],
            boots: 0,
            time: 0,
            user: name,
            digest: 0..0,
            salt: &[],
            data: &[],
        };
        let pdu = pdu(7);
        let scoped = Scoped { engine: &self.engine, context: b"vrf-a", tag: self.tag, pdu: &pdu };
        let keys = self.user.keys(&self.engine);
        // The flags are signed: they are set before, and the digest is made anew.
        let mut message = own.message(&about, self.user.level(), &keys, &scoped, self.at.1).unwrap();
        let read = Message::read(&message).unwrap();
        let (flags, digest) = (self.user.level().flags(), read.digest);
        let place = message.windows(3).position(|w| w == [OCTETS, 1, flags]).unwrap() + 2;
        message[place] = flags | self.flags;
        if let Some((auth, key)) = &keys.auth {
            message[digest.clone()].fill(0);
            let signed = auth.sign(key, &[&message]);
            message[digest].copy_from_slice(&signed);
        }
        message
    }
}

fn read(received: &Received) -> Trap {
    let Received::Notification { kept, .. } = received else { panic!("{}", why(received)) };
    snmp::parse(kept).unwrap()
}

fn why(received: &Received) -> String {
    match received {
        Received::Refused { kept, .. } => match snmp::parse(kept) {
            Err(SnmpError::Refused(reason)) => reason,
            other => panic!("{other:?}"),
        },
        other => format!("not refused: {other:?}"),
    }
}

/// The last arc but one of what a report counts, and whether it is authentic.
fn told(report: Option<&Vec<u8>>) -> (u8, bool) {
    let report = Message::read(report.expect("a report")).unwrap();
    assert_eq!((report.id, report.engine), (4242, OURS));
    let scoped = Scoped::read(report.data).unwrap();
    assert_eq!(scoped.tag, REPORT);
    let object = [0x2b, 6, 1, 6, 3, 15, 1, 1];
    let at = scoped.pdu.windows(object.len()).position(|w| w == object).unwrap();
    (scoped.pdu[at + object.len()], report.is(AUTHENTIC))
}

#[test]
fn traps_are_opened_whatever_they_are_protected_by() {
    let auths = std::iter::once(None).chain(Auth::NAMES.map(|(name, _)| Some(name)));
    for auth in auths {
        let privacies = std::iter::once(None).chain(Privacy::NAMES.map(|(name, _)| Some(name)));
        for privacy in privacies.filter(|privacy| privacy.is_none() || auth == Some("sha256") || auth == Some("md5")) {
            let user = user(auth, privacy);
            let trap = read(&receiver(std::slice::from_ref(&user)).receive(&Sender::traps(&user).message(), 10));
            assert_eq!((trap.version, trap.inform, trap.trap_oid.as_str()), (3, false, snmp::LINK_DOWN));
            assert_eq!(trap.varbinds["1.3.6.1.2.1.2.2.1.1.3"], "3");
            let by = trap.said_by.unwrap();
            assert_eq!((&*by.user, &*by.context, by.level), ("noc", "vrf-a", user.level()));
            assert_eq!(by.engine, hex::encode(THEIRS));
        }
    }
}

#[test]
fn what_is_changed_on_its_way_is_refused() {
    let user = user(Some("sha256"), Some("aes128"));
    let message = Sender::traps(&user).message();
    let usm = receiver(&[user]);
    for at in 0..message.len() {
        let mut changed = message.clone();
        changed[at] ^= 1;
        let received = usm.receive(&changed, 10);
        assert!(matches!(received, Received::Refused { .. }), "octet {at}");
    }
    assert!(usm.engines.lock().unwrap().known.is_empty(), "strangers make no state");
    read(&usm.receive(&message, 10));
}

#[test]
fn who_is_not_as_secure_as_the_user_is_not_the_user() {
    let secret = user(Some("sha1"), Some("aes128"));
    let cases = [
        (user(None, None), 1, "the message is noAuthNoPriv; user `noc` says everything authPriv"),
        (user(Some("sha1"), None), 1, "the message is authNoPriv; user `noc` says everything authPriv"),
        (User { name: "eve".into(), ..secret.clone() }, 3, "no user `eve` of engine"),
        (User { auth: user(Some("md5"), None).auth, ..secret.clone() }, 5, "the digest is not that of user `noc`"),
        (user(Some("sha1"), Some("des")), 6, "it does not decrypt for user `noc`"),
    ];
    for (sender, fault, reason) in cases {
        let usm = receiver(std::slice::from_ref(&secret));
        let message = Sender::informs(&sender, (5, 10)).message();
        let received = usm.receive(&message, 10);
        assert!(why(&received).starts_with(reason), "{}", why(&received));
        let Received::Refused { kept, report } = received else { unreachable!() };
        assert_eq!(told(report.as_ref()), (fault, false), "{reason}");
        assert_eq!(snmp::as_it_came(&kept), message);
        // Who does not want to be told is not.
        let quiet = Sender { flags: 0, ..Sender::informs(&sender, (5, 10)) }.message();
        assert!(matches!(usm.receive(&quiet, 10), Received::Refused { report: None, .. }));
    }
}

#[test]
fn a_trap_that_is_said_again_later_is_refused() {
    let user = user(Some("sha512"), None);
    let usm = receiver(std::slice::from_ref(&user));
    let at = |boots, time| Sender { at: (boots, time), ..Sender::traps(&user) }.message();
    read(&usm.receive(&at(3, 1000), 10));
    // Within the window, in any order.
    read(&usm.receive(&at(3, 900), 11));
    read(&usm.receive(&at(3, 1000), 150));
    assert!(why(&usm.receive(&at(3, 1000), 161)).contains("second 1151 of start 3"));
    // A start later its time begins anew, and what was before is over.
    read(&usm.receive(&at(4, 1), 162));
    assert!(why(&usm.receive(&at(3, 5000), 163)).contains("a replay"));
    assert!(why(&usm.receive(&at(MAX_NUMBER, 1), 163)).contains("start 2147483647"));
    // Who has no clock is believed as long as a clock that stands still is.
    let still = |now_s| Sender { at: (0, 0), engine: vec![0x80; 7], ..Sender::traps(&user) }.receive(&usm, now_s);
    read(&still(10_000));
    read(&still(10_150));
    assert!(why(&still(10_151)).contains("a replay"));
}

#[test]
fn an_inform_asks_who_we_are_and_is_answered() {
    for (auth, privacy) in
        [(None, None), (Some("md5"), None), (Some("sha1"), Some("des")), (Some("sha384"), Some("aes256"))]
    {
        let user = user(auth, privacy);
        let usm = receiver(std::slice::from_ref(&user));
        // Discovery: no engine, no user.
        let nobody = User { name: String::new(), engine: None, auth: None, privacy: None };
        let question = Sender { engine: Vec::new(), tag: 0xa0, ..Sender::informs(&nobody, (0, 0)) }.message();
        let Received::Question { report } = usm.receive(&question, 10) else { panic!("{auth:?}") };
        assert_eq!(told(Some(&report)), (4, false));
        let told_of = Message::read(&report).unwrap();
        assert_eq!((told_of.boots, told_of.time), (5, 10));
        if auth.is_some() {
            // It knows us, and not the time.
            let question = Sender::informs(&user, (0, 0)).message();
            let Received::Question { report } = usm.receive(&question, 20) else { panic!("{auth:?}") };
            assert_eq!(told(Some(&report)), (2, true));
        }
        let message = Sender::informs(&user, (5, 100)).message();
        let received = usm.receive(&message, 20);
        let trap = read(&received);
        assert!(trap.inform && trap.request_id == 7);
        let Received::Notification { answer: Some(answer), .. } = received else { unreachable!() };
        let answer_of = Message::read(&answer).unwrap();
        assert_eq!((answer_of.id, answer_of.engine, answer_of.boots, answer_of.time), (4242, OURS, 5, 20));
        let keys = user.keys(OURS);
        if let Some((auth, key)) = &keys.auth {
            let digest = answer_of.digest.clone();
            let mut unsigned = answer.clone();
            unsigned[digest.clone()].fill(0);
            assert!(auth.is_signed(key, &[&unsigned], &answer[digest]));
        }
        let data = match &keys.privacy {
            Some((privacy, key)) => {
                let hidden = expect(&mut Cursor::new(answer_of.data), OCTETS, "").unwrap().rest();
                privacy.decrypt(key, (5, 20), answer_of.salt, hidden).unwrap()
            }
            None => answer_of.data.to_vec(),
        };
        let scoped = Scoped::read(&data).unwrap();
        assert_eq!((scoped.tag, scoped.context, scoped.pdu), (RESPONSE, &b"vrf-a"[..], &pdu(7)[..]));
        if auth.is_some() {
            // Too late, or of a start before: refused, and told the time.
            for at in [(5, 300), (4, 20)] {
                let late = usm.receive(&Sender::informs(&user, at).message(), 20);
                let Received::Refused { report, .. } = &late else { panic!("{late:?}") };
                assert_eq!(told(report.as_ref()), (2, true));
            }
        }
        // To another engine, as where ours was made anew: it is told of ours.
        let astray = Sender { engine: THEIRS.to_vec(), ..Sender::informs(&user, (5, 20)) }.message();
        let Received::Refused { report, .. } = usm.receive(&astray, 20) else { panic!("{auth:?}") };
        assert_eq!(told(report.as_ref()), (4, false));
    }
}

#[test]
fn a_user_of_one_engine_is_none_of_another() {
    let of = |engine: &[u8], password| {
        let engine = hex::encode(engine);
        let config = UserConfig { name: "noc", engine: Some(&engine), auth: Some(("sha1", password)), privacy: None };
        User::new(&config).unwrap()
    };
    let (own, other) = (of(THEIRS, "password-1"), of(OURS, "password-2"));
    let general = user(Some("sha1"), None);
    let usm = receiver(&[general.clone(), own.clone(), other.clone()]);
    read(&usm.receive(&Sender::traps(&own).message(), 1));
    assert!(matches!(usm.receive(&Sender::traps(&general).message(), 1), Received::Refused { .. }));
    let elsewhere = Sender { engine: vec![0x80; 7], ..Sender::traps(&general) };
    read(&usm.receive(&elsewhere.message(), 1));
    // Another password, and the one before is over.
    usm.exchange(vec![user(Some("md5"), None)]);
    assert!(matches!(usm.receive(&elsewhere.message(), 1), Received::Refused { .. }));
    assert!(why(&receiver(&[other]).receive(&Sender::traps(&own).message(), 1)).contains("no user `noc`"));
}

#[test]
fn engines_that_are_known_are_bounded() {
    let user = user(Some("md5"), None);
    let usm = receiver(std::slice::from_ref(&user));
    let of = |n: u32, time| {
        let engine = [&[0x80, 0, 0, 1, 5][..], &n.to_be_bytes()].concat();
        Sender { engine, at: (1, time), ..Sender::traps(&user) }.message()
    };
    for n in 0..MAX_ENGINES as u32 + 10 {
        read(&usm.receive(&of(n, 500), 0));
        read(&usm.receive(&of(0, 500), 0));
    }
    assert_eq!(usm.engines.lock().unwrap().known.len(), MAX_ENGINES);
    // The one that is heard stays, and what it said long ago is known to be old.
    assert!(why(&usm.receive(&of(0, 1), 0)).contains("a replay"));
    read(&usm.receive(&of(1, 1), 0));
}

#[test]
fn what_is_wrong_with_a_user_is_told() {
    let of = |name, engine, auth, privacy| UserConfig { name, engine, auth, privacy }.check().unwrap_err();
    assert_eq!(of("", None, None, None), "a user's name has 1 to 32 octets");
    assert!(of("a", Some("80"), None, None).contains("5 to 32 octets"));
    assert!(of("a", Some("xx"), None, None).contains("hex digits"));
    assert!(of("a", None, Some(("sha", "password")), None).contains("sha1, sha224, sha256"));
    assert!(of("a", None, Some(("sha1", "password")), Some(("aes", "password"))).contains("aes128"));
    assert!(of("a", None, None, Some(("des", "password"))).contains("`auth` is missing"));
    assert_eq!(of("a", None, Some(("sha1", "1234567")), None), "a password has at least 8 octets");
    assert!(!format!("{:?}", user(Some("md5"), None)).contains("maple"));
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(noise: Vec<u8>, cut in 0usize..200, flip in 0usize..200, bit in 0u8..8) {
        let open = user(None, None);
        let usm = receiver(std::slice::from_ref(&open));
        for mut m in [noise, Sender::traps(&open).message(), Sender::informs(&open, (5, 1)).message()] {
            m.truncate(cut);
            if let Some(b) = m.get_mut(flip) { *b ^= 1 << bit; }
            match usm.receive(&m, 1) {
                Received::Notification { kept, .. } => {
                    // Its PDU is read later.
                    let _ = snmp::parse(&kept);
                }
                Received::Refused { kept, .. } => {
                    assert!(matches!(snmp::parse(&kept), Err(SnmpError::Refused(_))));
                    assert_eq!(snmp::as_it_came(&kept), m);
                }
                Received::Question { .. } => {}
            }
        }
    }
}

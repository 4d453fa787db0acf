//! Commands judged one after another; and at random, against what must hold of any of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use radarflow_proto::fact::{Receiver, ReceiverKind};
use radarflow_proto::resource::{
    Act, Command, Condition, Fields, Operation, Principal, PrincipalKind, RefusalCode, Resource, ResourceChange,
};
use radarflow_proto::rows::{ApiToken, StateRow, Table, User};
use serde_json::{Value, json};

use super::judge::ANSWERED_US;
use super::*;

fn fields(json: Value) -> Fields {
    serde_json::from_value(json).unwrap()
}

fn host() -> Principal {
    Principal::of_host(PrincipalKind::Host, "root")
}

fn by_token(id: &str) -> Principal {
    Principal { kind: PrincipalKind::Token, id: id.into(), name: id.into(), address: None }
}

fn operation(resource: &str, id: &str, act: Act) -> Operation {
    let (resource, id) = (resource.into(), id.into());
    Operation { resource, id, act, condition: Condition::Any, owner: String::new() }
}

fn command(principal: Principal, operations: Vec<Operation>) -> Command {
    let (command_id, reason) = ("c".to_owned(), String::new());
    Command { tenant: "t".into(), command_id, digest: None, principal, reason, force: false, operations }
}

fn create(resource: &str, id: &str, json: Value) -> Operation {
    operation(resource, id, Act::Create { fields: fields(json) })
}

fn update(resource: &str, id: &str, json: Value) -> Operation {
    operation(resource, id, Act::Update { fields: fields(json) })
}

#[derive(Default)]
struct Court {
    judge: Judge,
    epoch: u64,
}

impl Court {
    fn at(&self) -> At {
        At { epoch: self.epoch, now_us: self.epoch as i64 * 1_000_000 }
    }

    fn verdict(&mut self, command: &Command) -> Verdict {
        self.epoch += 1;
        let at = self.at();
        self.judge.judge(at, command)
    }

    fn ask(&mut self, principal: Principal, operations: Vec<Operation>) -> Result<Vec<ResourceChange>, RefusalCode> {
        let verdict = self.verdict(&command(principal, operations));
        verdict.judgement.outcome.map(|_| verdict.changes).map_err(|refusal| refusal.code)
    }

    /// A tenant with an administrator's token `admin`, an operator's and a viewer's.
    fn with_tokens() -> Self {
        let mut court = Court::default();
        let token = |role: &str| create("tokens", role, json!({"name": role, "role": role, "sha256": role}));
        court.ask(host(), vec![token("admin"), token("operator"), token("viewer")]).unwrap();
        court
    }
}

#[test]
fn of_two_who_read_the_same_one_writes() {
    let mut court = Court::with_tokens();
    let group = json!({"condition": "type:router"});
    court.ask(by_token("operator"), vec![create("device_groups", "core", group)]).unwrap();
    let read = court.epoch;
    let write = |description: &str| Operation {
        condition: Condition::Epoch(read),
        ..update("device_groups", "core", json!({"description": description}))
    };
    let changes = court.ask(by_token("operator"), vec![write("mine")]).unwrap();
    assert_eq!(changes[0].after.as_ref().unwrap().text("condition"), Some("type:router"), "what is not named stays");
    let first = court.epoch;
    let verdict = court.verdict(&command(by_token("admin"), vec![write("yours")]));
    let refusal = verdict.judgement.outcome.unwrap_err();
    assert_eq!(refusal.code, RefusalCode::PreconditionFailed);
    assert!(refusal.detail.contains("operator") && refusal.detail.contains(&first.to_string()), "{}", refusal.detail);
}

#[test]
fn all_is_done_or_nothing() {
    let mut court = Court::with_tokens();
    let before = court.judge.standing().clone();
    let operations = vec![
        create("roles", "noc", json!({"permissions": ["alerts:step"]})),
        create("users", "ann", json!({"role": "noc"})),
        operation("users", "nobody", Act::Delete),
    ];
    let verdict = court.verdict(&command(by_token("admin"), operations.clone()));
    assert_eq!(verdict.judgement.outcome.unwrap_err().operation, 2);
    assert_eq!(*court.judge.standing(), before);
    // Without the last, and in an order in which the user is first: the end counts.
    let changes = court.ask(by_token("admin"), vec![operations[1].clone(), operations[0].clone()]).unwrap();
    assert_eq!(changes.len(), 2);
    // A role that somebody has does not go; with its user it does.
    let gone = |resource: &str, id: &str| operation(resource, id, Act::Delete);
    assert_eq!(court.ask(by_token("admin"), vec![gone("roles", "noc")]), Err(RefusalCode::Reference));
    court.ask(by_token("admin"), vec![gone("roles", "noc"), gone("users", "ann")]).unwrap();
}

#[test]
fn nobody_gives_what_they_have_not() {
    let mut court = Court::with_tokens();
    let manager = json!({"permissions": ["users:*", "tokens:*", "roles:*", "data:read", "device_groups:read", "profiles:read", "receivers:read",
        "routes:read", "silences:read", "inhibit_rules:read", "time_intervals:read", "maintenance_windows:read",
        "escalation_policies:read", "rules:read", "dependencies:read", "clear_pairs:read", "rotas:read", "rota_overrides:read",
        "integrations:read", "parsing_rules:read", "certificate_authorities:read", "edge_packages:read"]});
    let token = |id: &str, role: &str| create("tokens", id, json!({"name": id, "role": role, "sha256": id}));
    court.ask(by_token("admin"), vec![create("roles", "people", manager), token("people", "people")]).unwrap();
    let ask = |court: &mut Court, operation| court.ask(by_token("people"), vec![operation]);
    assert!(ask(&mut court, create("users", "ann", json!({"role": "viewer"}))).is_ok());
    let above = [
        create("users", "bob", json!({"role": "operator"})),
        update("users", "ann", json!({"role": "admin"})),
        token("more", "admin"),
        create("roles", "more", json!({"permissions": ["links:create"]})),
        update("roles", "people", json!({"permissions": ["links:create"]})),
    ];
    for operation in above {
        assert_eq!(ask(&mut court, operation.clone()), Err(RefusalCode::Forbidden), "{operation:?}");
    }
    let unknown = create("roles", "odd", json!({"permissions": ["users:fly"]}));
    assert_eq!(ask(&mut court, unknown), Err(RefusalCode::Invalid));
    // Whoever is bound to partitions states nothing that is the whole tenant's.
    let bound = json!({"name": "b", "role": "admin", "partitions": ["north"], "sha256": "b"});
    court.ask(by_token("admin"), vec![create("tokens", "b", bound)]).unwrap();
    let group = create("device_groups", "g", json!({"condition": "type:router"}));
    assert_eq!(court.ask(by_token("b"), vec![group.clone()]), Err(RefusalCode::Forbidden));
    assert_eq!(court.ask(by_token("viewer"), vec![group.clone()]), Err(RefusalCode::Forbidden));
    // Once revoked it does nothing, even in the same frame.
    court.ask(by_token("admin"), vec![operation("tokens", "operator", Act::Delete)]).unwrap();
    assert_eq!(court.ask(by_token("operator"), vec![group]), Err(RefusalCode::Forbidden));
}

#[test]
fn somebody_administers_as_long_as_anybody_does() {
    let mut court = Court::with_tokens();
    let revoke = || vec![operation("tokens", "admin", Act::Delete)];
    assert_eq!(court.ask(by_token("admin"), revoke()), Err(RefusalCode::Conflict));
    let ann = create("users", "ann", json!({"role": "admin"}));
    court.ask(by_token("admin"), vec![ann]).unwrap();
    assert_eq!(court.ask(by_token("admin"), revoke()), Err(RefusalCode::Conflict), "she cannot sign in");
    court.ask(by_token("admin"), vec![update("users", "ann", json!({"password": "hash"}))]).unwrap();
    court.ask(by_token("admin"), revoke()).unwrap();
    assert_eq!(court.ask(host(), vec![update("users", "ann", json!({"disabled": true}))]).map(|c| c.len()), Ok(1));
}

#[test]
fn what_files_own_is_changed_there() {
    let mut court = Court::with_tokens();
    let owned = |operation: Operation, owner: &str| vec![Operation { owner: owner.into(), ..operation }];
    let group = || operation("device_groups", "core", Act::Put { fields: fields(json!({"condition": "type:router"})) });
    court.ask(by_token("admin"), owned(group(), "gitops")).unwrap();
    for other in ["", "others"] {
        let change = update("device_groups", "core", json!({"description": "x"}));
        assert_eq!(court.ask(by_token("admin"), owned(change, other)), Err(RefusalCode::Owned));
        let gone = operation("device_groups", "core", Act::Delete);
        assert_eq!(court.ask(by_token("admin"), owned(gone, other)), Err(RefusalCode::Owned));
    }
    assert_eq!(court.ask(by_token("admin"), owned(group(), "gitops")), Ok(vec![]), "said again it is what it was");
    court.ask(by_token("admin"), owned(operation("device_groups", "core", Act::Delete), "gitops")).unwrap();
}

#[test]
fn a_key_has_one_outcome_for_a_day() {
    let mut court = Court::with_tokens();
    let keyed = |digest: &str, id: &str| Command {
        command_id: "key".into(),
        digest: Some(digest.into()),
        ..command(by_token("admin"), vec![create("users", id, json!({"role": "viewer"}))])
    };
    let first = court.verdict(&keyed("d", "ann"));
    let again = court.verdict(&keyed("d", "ann"));
    assert_eq!((again.judgement, again.changes, again.again), (first.judgement, vec![], true));
    let other = court.verdict(&keyed("e", "bob"));
    assert_eq!(other.judgement.outcome.unwrap_err().code, RefusalCode::IdempotencyMismatch);
    // Without a key of the asker's nothing is kept: the second is a second one.
    assert_eq!(
        court.ask(by_token("admin"), vec![create("users", "ann", json!({"role": "viewer"}))]),
        Err(RefusalCode::Exists)
    );
    let kept = court.judge.due_us().expect("an answer is forgotten some day");
    assert!(court.judge.expire(kept - 1).1.is_empty());
    assert_eq!(court.judge.expire(kept), (vec![], vec!["key".to_owned()]));
    assert_eq!(kept - ANSWERED_US, 2_000_000);
}

#[test]
fn sessions_end_by_themselves_and_by_who_has_them() {
    let mut court = Court::with_tokens();
    let session = |id: &str, user: &str, at: i64| {
        create("sessions", id, json!({"user": user, "method": "password", "expires_at": at, "sha256": id}))
    };
    let system = Principal::of_host(PrincipalKind::System, "radarflow");
    let users = ["ann", "bob"].map(|user| create("users", user, json!({"role": "viewer", "password": "hash"})));
    court.ask(host(), users.into()).unwrap();
    let far = 1_000_000_000;
    let all = vec![session("a", "ann", far), session("b", "bob", far), session("c", "ann", 20_000_000)];
    assert_eq!(court.ask(by_token("admin"), all.clone()), Err(RefusalCode::Forbidden), "people make none");
    court.ask(system, all).unwrap();
    let by = |id: &str| Principal { kind: PrincipalKind::Session, ..by_token(id) };
    let gone = |id: &str| vec![operation("sessions", id, Act::Delete)];
    assert_eq!(court.ask(by("a"), gone("b")), Err(RefusalCode::Forbidden));
    let own = update("users", "ann", json!({"display_name": "Ann"}));
    assert!(court.ask(by("a"), vec![own]).is_ok());
    for not_own in [update("users", "ann", json!({"role": "admin"})), update("users", "bob", json!({"password": "x"}))]
    {
        assert_eq!(court.ask(by("a"), vec![not_own]), Err(RefusalCode::Forbidden));
    }
    let (over, _) = court.judge.expire(20_000_000);
    assert_eq!(over.iter().map(|c| c.before.as_ref().unwrap().id.as_str()).collect::<Vec<_>>(), ["c"]);
    let sign_out = operation("users", "ann", Act::Do { action: "sign_out".into(), fields: Fields::new() });
    assert_eq!(court.ask(by("a"), vec![sign_out]).unwrap().len(), 1);
    assert_eq!(court.ask(by("a"), gone("a")), Err(RefusalCode::Forbidden), "it is over");
    assert!(court.ask(by("b"), gone("b")).is_ok());

    // Another password ends the others; who is disabled or gone has none, and whoever is called so later has none of theirs.
    let system = || Principal::of_host(PrincipalKind::System, "radarflow");
    let sessions = |court: &Court| {
        court
            .judge
            .standing()
            .keys()
            .filter(|(table, _)| *table == Table::Session)
            .map(|(_, id)| id.clone())
            .collect::<Vec<_>>()
    };
    let signed_in =
        |court: &mut Court| court.ask(system(), vec![session("d", "bob", far), session("e", "bob", far)]).unwrap();
    signed_in(&mut court);
    court.ask(by("d"), vec![update("users", "bob", json!({"password": "new"}))]).unwrap();
    assert_eq!(sessions(&court), ["d"]);
    for change in [update("users", "bob", json!({"disabled": true})), operation("users", "bob", Act::Delete)] {
        court.ask(by_token("admin"), vec![update("users", "bob", json!({"disabled": false}))]).unwrap();
        court.ask(system(), sessions(&court).iter().map(|id| operation("sessions", id, Act::Delete)).collect()).ok();
        signed_in(&mut court);
        court.ask(by_token("admin"), vec![change]).unwrap();
        assert_eq!(sessions(&court), [] as [String; 0]);
    }
}

#[test]
fn secrets_are_in_no_row() {
    let mut court = Court::with_tokens();
    let receiver =
        json!({"url": "https://host", "target": "https://u:hush@host/x?k=hush", "headers": ["Authorization: hush"]});
    let operations = vec![
        create("users", "ann", json!({"role": "viewer", "password": "hush", "email": "ann@example.net"})),
        create("receivers", "ops", receiver),
        create(
            "tokens",
            "x",
            json!({"name": "x", "role": "viewer", "sha256": "hush", "expires_at": "2030-01-01T00:00:00Z"}),
        ),
    ];
    let changes = court.ask(by_token("admin"), operations).unwrap();
    assert_eq!(changes.len(), 3);
    for change in &changes {
        let after = change.after.as_ref().unwrap();
        let row = named(&after.resource).unwrap().row(after).expect("it is a row of its table");
        let mut line = String::new();
        row.copy(&mut line);
        assert!(!line.contains("hush"), "{line}");
        match &row {
            StateRow::User(user) => {
                let User { has_password, owner, .. } = &**user;
                assert!(*has_password && owner.is_none());
            }
            StateRow::ApiToken(token) => {
                let ApiToken { expires_at, .. } = &**token;
                assert_eq!(expires_at.unwrap().to_string(), "2030-01-01T00:00:00Z");
            }
            StateRow::Receiver(receiver) => {
                assert_eq!(
                    (receiver.url.as_str(), &receiver.header_names[..]),
                    ("https://host", &["Authorization".to_owned()][..])
                );
            }
            other => panic!("{other:?}"),
        }
    }
    // What the host keeps is the host's to send.
    for target in ["file:/etc/shadow", "env:HOME", "ftp://host"] {
        let other = create("receivers", "other", json!({"target": target}));
        assert_eq!(court.ask(by_token("admin"), vec![other]), Err(RefusalCode::Invalid), "{target}");
    }
    let header = create("receivers", "other", json!({"target": "http://host", "headers": ["X: file:/etc/shadow"]}));
    assert_eq!(court.ask(by_token("admin"), vec![header]), Err(RefusalCode::Invalid));
    // A secret that is not named stays.
    let changes =
        court.ask(by_token("admin"), vec![update("receivers", "ops", json!({"send_resolved": false}))]).unwrap();
    let receiver = told::receiver(changes[0].after.as_ref().unwrap()).unwrap();
    assert_eq!((receiver.url.as_str(), receiver.send_resolved), ("https://u:hush@host/x?k=hush", false));
}

#[test]
fn what_was_stated_before_there_were_resources_means_the_same() {
    let receiver = Receiver {
        tenant: "t".into(),
        name: "ops".into(),
        url: "env:HOOK".into(),
        kind: ReceiverKind::AlertmanagerApi,
        group_by: vec!["rule".into()],
        group_wait_ms: 1,
        group_interval_ms: 2,
        repeat_interval_ms: 3,
        send_resolved: false,
        headers: [("Authorization".to_owned(), "file:/run/hook".to_owned())].into(),
        credential: None,
        signing_key: None,
        template: None,
        of_host: true,
    };
    let mut court = Court::default();
    let fact = radarflow_proto::fact::Fact::Receiver(receiver.clone());
    let verdict = court.verdict(&told::command(&fact).unwrap());
    let after = verdict.changes[0].after.clone().unwrap();
    assert_eq!((told::receiver(&after), after.owner.as_str()), (Some(receiver), told::CONFIGURATION));
    assert_eq!(told::fact(&after), Some(fact));
}

#[test]
fn what_was_stated_when_there_were_no_bounds_stands() {
    let group = |name: &str| radarflow_proto::fact::DeviceGroup {
        tenant: "t".into(),
        name: name.into(),
        condition: Some("x".repeat(100_000)),
        members: vec![],
        description: "y".repeat(5000),
        actor: radarflow_proto::fact::Actor { name: "ann".into(), role: radarflow_proto::fact::Role::Operator },
        reason: "z".repeat(5000),
    };
    let mut court = Court::default();
    let fact = radarflow_proto::fact::Fact::DeviceGroup(group(" odd * name "));
    let verdict = court.verdict(&told::command(&fact).unwrap());
    assert_eq!(verdict.judgement.outcome.as_ref().map(Vec::len), Ok(1), "{:?}", verdict.judgement);
    assert_eq!(told::shown("https://u:p@host:1/services/T0/hush?k=hush#x"), "https://host:1");
}

#[test]
fn answers_take_so_much_and_no_more() {
    let mut court = Court::with_tokens();
    court.ask(by_token("admin"), vec![create("device_groups", "g", json!({"condition": "x".repeat(19_000)}))]).unwrap();
    let big = |n: usize| Command {
        command_id: format!("k{n}"),
        digest: Some("d".into()),
        ..command(by_token("admin"), vec![update("device_groups", "g", json!({"description": n.to_string()}))])
    };
    for n in 0..5000 {
        court.verdict(&big(n));
        let at = court.at();
        if court.judge.due_us().is_some_and(|due| due <= at.now_us) {
            court.judge.expire(at.now_us);
        }
    }
    assert!(court.judge.answered("k0").is_none() && court.judge.answered("k4999").is_some());
    // Who may not do it is told so each time, and nothing is kept of that.
    let refused =
        Command { command_id: "no".into(), digest: Some("d".into()), ..command(by_token("viewer"), big(1).operations) };
    court.verdict(&refused);
    assert!(court.judge.answered("no").is_none());
}

#[test]
fn what_is_ones_own_stays_whose_it_was() {
    let mut court = Court::with_tokens();
    let owned =
        Operation { owner: "git".into(), ..create("users", "ann", json!({"role": "viewer", "password": "hash"})) };
    court.ask(by_token("admin"), vec![owned]).unwrap();
    let session = json!({"user": "ann", "method": "password", "expires_at": 1_000_000_000, "sha256": "x"});
    court.ask(Principal::of_host(PrincipalKind::System, "radarflow"), vec![create("sessions", "s", session)]).unwrap();
    let by = Principal { kind: PrincipalKind::Session, ..by_token("s") };
    let mine = Operation { owner: "x".into(), ..update("users", "ann", json!({"display_name": "Ann"})) };
    let changes = court.ask(by, vec![mine]).unwrap();
    assert_eq!(changes[0].after.as_ref().unwrap().owner, "git");
    // The configuration's name is nobody else's to say.
    let claims = Operation { owner: "config".into(), ..create("device_groups", "g", json!({"condition": "x:y"})) };
    assert_eq!(court.ask(by_token("admin"), vec![claims]), Err(RefusalCode::Forbidden));
    // The last administrator goes where that is meant.
    let gone = vec![operation("tokens", "admin", Act::Delete)];
    assert_eq!(court.ask(by_token("admin"), gone.clone()), Err(RefusalCode::Conflict));
    let forced = Command { force: true, ..command(by_token("admin"), gone) };
    assert!(court.verdict(&forced).judgement.outcome.is_ok());
}

#[test]
fn a_resource_is_read_back_from_a_snapshot() {
    let mut court = Court::with_tokens();
    court.ask(by_token("admin"), vec![create("users", "ann", json!({"role": "viewer", "password": "x"}))]).unwrap();
    let mut again = Judge::default();
    for resource in court.judge.standing().values() {
        let bytes = postcard::to_stdvec(&**resource).unwrap();
        again.restore(Arc::new(postcard::from_bytes::<Resource>(&bytes).unwrap()));
    }
    assert_eq!(again.standing(), court.judge.standing());
}

/// What anybody may do at random.
fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let id = prop::sample::select(vec!["a", "b", "c", "admin", "viewer"]);
    let resource = prop::sample::select(vec!["users", "roles", "tokens", "device_groups"]);
    let fields = prop::sample::select(vec![
        json!({"role": "viewer", "name": "n"}),
        json!({"role": "a"}),
        json!({"role": "admin", "password": "p"}),
        json!({"permissions": ["alerts:step"]}),
        json!({"condition": "type:x"}),
        json!({"no_such": 1}),
    ]);
    let condition = prop_oneof![
        4 => Just(Condition::Any),
        1 => Just(Condition::Absent),
        1 => (1u64..8).prop_map(Condition::Epoch),
    ];
    let owner = prop::sample::select(vec!["", "", "", "files"]);
    let one = (resource, id, 0..4, fields, condition, owner).prop_map(|(resource, id, act, said, condition, owner)| {
        let fields = self::fields(said);
        let act = match act {
            0 => Act::Create { fields },
            1 => Act::Update { fields },
            2 => Act::Put { fields },
            _ => Act::Delete,
        };
        Operation { condition, owner: owner.into(), ..operation(resource, id, act) }
    });
    prop::collection::vec(one, 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_is_asked(asked in prop::collection::vec((prop::bool::ANY, operations()), 1..40)) {
        let mut court = Court::with_tokens();
        for (host_asks, operations) in asked {
            let before = court.judge.standing().clone();
            let principal = if host_asks { host() } else { by_token("admin") };
            let verdict = court.verdict(&command(principal, operations));
            // What is told to have changed is what changed, and nothing else did.
            let mut after = before.clone();
            for ResourceChange { before: was, after: is } in &verdict.changes {
                let of = was.as_ref().or(is.as_ref()).unwrap();
                let key = (named(&of.resource).unwrap().table, of.id.clone());
                prop_assert_eq!(before.get(&key), was.as_ref());
                prop_assert!(is.as_ref().is_none_or(|is| is.epoch == court.epoch));
                match is {
                    Some(is) => after.insert(key, is.clone()),
                    None => after.remove(&key),
                };
            }
            prop_assert_eq!(court.judge.standing(), &after);
            prop_assert!(verdict.judgement.outcome.is_ok() || verdict.changes.is_empty());
            // Everybody has a role that there is; counts and ends are those of what stands.
            let mut counts = BTreeMap::new();
            for ((table, _), resource) in court.judge.standing() {
                *counts.entry(*table).or_insert(0) += 1;
                if let Some(role) = resource.text("role") {
                    prop_assert!(world::role(court.judge.standing(), role).is_some(), "{:?}", resource);
                }
                prop_assert!(named(&resource.resource).unwrap().row(resource).is_some());
            }
            let rebuilt = court.judge.standing().values().cloned().fold(Judge::default(), |mut judge, resource| {
                judge.restore(resource);
                judge
            });
            prop_assert_eq!(rebuilt.due_us(), court.judge.due_us());
        }
    }
}

#[test]
fn nobody_changes_who_may_more_than_they_do() {
    let mut court = Court::with_tokens();
    let desk = json!({"permissions": ["users:update", "users:delete", "users:sign_out", "users:read", "data:read"]});
    let token = json!({"name": "desk", "role": "desk", "sha256": "desk"});
    let boss = json!({"role": "admin", "password": "hash"});
    court
        .ask(
            host(),
            vec![create("roles", "desk", desk), create("tokens", "desk", token), create("users", "boss", boss)],
        )
        .unwrap();
    court.ask(host(), vec![create("users", "ann", json!({"role": "desk"}))]).unwrap();
    let sign_out = Act::Do { action: "sign_out".into(), fields: Fields::new() };
    for operation in [
        // To less, and to a password that is known, until somebody gives the role back.
        update("users", "boss", json!({"role": "viewer", "password": "known"})),
        update("users", "boss", json!({"provider": "corp", "password": null})),
        operation("users", "boss", Act::Delete),
        operation("users", "boss", sign_out),
    ] {
        assert_eq!(court.ask(by_token("desk"), vec![operation]), Err(RefusalCode::Forbidden));
    }
    assert!(court.ask(by_token("desk"), vec![update("users", "ann", json!({"display_name": "Ann"}))]).is_ok());
}

#[test]
fn who_a_provider_signs_in_is_signed_in_by_nothing_else() {
    let mut court = Court::with_tokens();
    let system = || Principal::of_host(PrincipalKind::System, "radarflow");
    let provider = json!({"issuer": "https://id.example", "client_id": "us", "client_secret": "sealed:a", "roles": ["noc=operator"]});
    court.ask(by_token("admin"), vec![create("identity_providers", "corp", provider)]).unwrap();
    let user = json!({"role": "viewer", "password": "hash", "email": "ann@example.net"});
    court.ask(by_token("admin"), vec![create("users", "ann", user)]).unwrap();
    let link =
        |id: &str| create("sign_in_links", id, json!({"user": "ann", "expires_at": 1_000_000_000, "sha256": id}));
    let session = |id: &str, method: &str, epoch: Option<u64>| {
        let epoch = epoch.map(|epoch| epoch.to_string());
        let expires_at = 1_000_000_000;
        create("sessions", id, json!({"user": "ann", "method": method, "expires_at": expires_at, "user_epoch": epoch}))
    };
    let stands = |court: &Court, table: Table| {
        let keys = court.judge.standing().keys().filter(|(of, _)| *of == table);
        keys.map(|(_, id)| id.clone()).collect::<Vec<_>>()
    };
    let ann = |court: &Court| court.judge.standing()[&(Table::User, "ann".to_owned())].clone();
    court.ask(system(), vec![link("l"), session("s", "password", Some(ann(&court).epoch))]).unwrap();
    // Another address ends the links, another provider also the sessions; a password goes with neither.
    court.ask(by_token("admin"), vec![update("users", "ann", json!({"email": "ann@example.com"}))]).unwrap();
    assert_eq!((stands(&court, Table::SignInLink), stands(&court, Table::Session)), (vec![], vec!["s".to_owned()]));
    let theirs = update("users", "ann", json!({"provider": "corp"}));
    assert_eq!(court.ask(by_token("admin"), vec![theirs]), Err(RefusalCode::Invalid));
    let before = ann(&court).epoch;
    let theirs = update("users", "ann", json!({"provider": "corp", "subject": "7", "password": null}));
    court.ask(by_token("admin"), vec![theirs]).unwrap();
    assert_eq!(stands(&court, Table::Session), [] as [String; 0]);
    // What was shown before that begins no session; nor does what a user shows who is cut off, or is not there.
    let late = court.ask(system(), vec![session("s", "password", Some(before))]);
    assert_eq!(late, Err(RefusalCode::PreconditionFailed));
    court.ask(system(), vec![session("s", "oidc:corp", Some(ann(&court).epoch))]).unwrap();
    // A provider that lets nobody in any more ends what it began.
    court.ask(by_token("admin"), vec![update("identity_providers", "corp", json!({"disabled": true}))]).unwrap();
    assert_eq!(stands(&court, Table::Session), [] as [String; 0]);
    // Who somebody is to one provider says nothing of another.
    assert_eq!(ann(&court).text("subject"), Some("7"));
    court.ask(by_token("admin"), vec![update("users", "ann", json!({"provider": "other"}))]).unwrap();
    assert_eq!(ann(&court).text("subject"), None);
    court.ask(by_token("admin"), vec![update("users", "ann", json!({"disabled": true}))]).unwrap();
    let cut = court.ask(system(), vec![session("s", "oidc:other", None)]);
    assert_eq!(cut, Err(RefusalCode::PreconditionFailed));
}

#[test]
fn the_secret_of_a_provider_is_for_its_issuer_alone() {
    let mut court = Court::with_tokens();
    let provider = json!({"issuer": "https://id.example", "client_id": "us", "client_secret": "sealed:a"});
    court.ask(by_token("admin"), vec![create("identity_providers", "corp", provider)]).unwrap();
    let secret = |court: &Court| {
        let corp = &court.judge.standing()[&(Table::IdentityProvider, "corp".to_owned())];
        corp.secrets.get("client_secret").cloned()
    };
    let mut change = |change: Value| {
        court.ask(by_token("admin"), vec![update("identity_providers", "corp", change)]).unwrap();
        secret(&court)
    };
    assert_eq!(change(json!({"issuer": "https://id.example", "user_claim": "email"})).as_deref(), Some("sealed:a"));
    let both = json!({"issuer": "https://b.example", "client_secret": "sealed:b"});
    assert_eq!(change(both).as_deref(), Some("sealed:b"));
    assert_eq!(change(json!({"issuer": "https://c.example"})), None);
}

#[test]
fn whoever_says_who_users_are_may_what_they_may() {
    let mut court = Court::with_tokens();
    let links = json!({"permissions": ["identity_providers:create", "identity_providers:update", "data:read"]});
    let token = json!({"name": "idm", "role": "idm", "sha256": "idm"});
    court.ask(host(), vec![create("roles", "idm", links), create("tokens", "idm", token)]).unwrap();
    let provider = json!({"issuer": "https://id.example", "client_id": "us", "default_role": "idm"});
    court.ask(by_token("idm"), vec![create("identity_providers", "corp", provider.clone())]).unwrap();
    let above = update("identity_providers", "corp", json!({"roles": ["all=admin"]}));
    assert_eq!(court.ask(by_token("idm"), vec![above]), Err(RefusalCode::Forbidden));
    // A provider that somebody above signs in with is not theirs to change, nor to make again.
    court.ask(host(), vec![create("users", "boss", json!({"role": "admin", "provider": "corp"}))]).unwrap();
    let elsewhere = update("identity_providers", "corp", json!({"issuer": "https://evil.example"}));
    assert_eq!(court.ask(by_token("idm"), vec![elsewhere]), Err(RefusalCode::Forbidden));
    court.ask(host(), vec![operation("identity_providers", "corp", Act::Delete)]).unwrap();
    assert_eq!(
        court.ask(by_token("idm"), vec![create("identity_providers", "corp", provider)]),
        Err(RefusalCode::Forbidden)
    );
}

#[test]
fn a_sign_in_takes_the_last_administrator_away_no_more_than_a_person_does() {
    let mut court = Court::default();
    court.ask(host(), vec![create("users", "boss", json!({"role": "admin", "password": "hash"}))]).unwrap();
    let system = Principal::of_host(PrincipalKind::System, "boss");
    let less = update("users", "boss", json!({"role": "viewer"}));
    assert_eq!(court.ask(system, vec![less.clone()]), Err(RefusalCode::Conflict));
    assert!(court.ask(host(), vec![less]).is_ok(), "who has the host may");
}

#[test]
fn an_administrator_forgets_the_second_factor_of_who_lost_it() {
    let mut court = Court::with_tokens();
    let user = json!({"role": "viewer", "password": "hash", "totp": "sealed:x", "totp_step": "1"});
    court.ask(host(), vec![create("users", "ann", user)]).unwrap();
    let session = json!({"user": "ann", "method": "password", "expires_at": 1_000_000_000, "sha256": "s"});
    court.ask(Principal::of_host(PrincipalKind::System, "ann"), vec![create("sessions", "s", session)]).unwrap();
    let reset =
        || vec![operation("users", "ann", Act::Do { action: "reset_second_factor".into(), fields: Fields::new() })];
    let own = Principal { kind: PrincipalKind::Session, ..by_token("s") };
    assert_eq!(court.ask(own, reset()), Err(RefusalCode::Forbidden), "not even for oneself");
    court.ask(by_token("admin"), reset()).unwrap();
    let ann = &court.judge.standing()[&(Table::User, "ann".to_owned())];
    assert_eq!(ann.secrets.keys().collect::<Vec<_>>(), ["password"]);
    assert!(!court.judge.standing().contains_key(&(Table::Session, "s".to_owned())));
}

#[test]
fn a_package_is_downloaded_once_and_what_is_revoked_stays_out() {
    let mut court = Court::with_tokens();
    let made =
        json!({"name": "north", "agent_id": "edge-1", "site": "dc7", "sha256": "s", "expires_at": 1_000_000_000});
    let make = |id: &str| create("edge_packages", id, made.clone());
    assert_eq!(court.ask(by_token("operator"), vec![make("p")]), Err(RefusalCode::Forbidden));
    court.ask(by_token("admin"), vec![make("p")]).unwrap();
    let read = court.epoch;
    assert_eq!(court.ask(by_token("admin"), vec![make("q")]), Err(RefusalCode::Conflict));
    for (field, wrong) in
        [("agent_id", "a.b"), ("site", "a/b"), ("gateway", "host"), ("gateway", "h:0"), ("gateway", "u@h:1")]
    {
        let mut said = made.clone();
        (said["agent_id"], said[field]) = (json!("edge-2"), json!(wrong));
        let asked = court.ask(by_token("admin"), vec![create("edge_packages", "q", said)]);
        assert_eq!(asked, Err(RefusalCode::Invalid), "{field} {wrong}");
    }
    let said = json!({"agent_id": "edge-2"});
    assert_eq!(court.ask(by_token("admin"), vec![update("edge_packages", "p", said)]), Err(RefusalCode::Immutable));

    // Two who download it at once read the same.
    let download = |serial: &str| Operation {
        condition: Condition::Epoch(read),
        ..update(
            "edge_packages",
            "p",
            json!({"serial": serial, "of_key": serial, "downloaded_at": 7, "expires_at": null}),
        )
    };
    let system = || Principal::of_host(PrincipalKind::System, "enrolment");
    let row = |changes: &[ResourceChange]| {
        let after = changes[0].after.as_ref().unwrap();
        match edge::EDGE_PACKAGES.row(after).unwrap() {
            StateRow::EdgePackage(row) => row,
            other => panic!("{other:?}"),
        }
    };
    let first = row(&court.ask(system(), vec![download("01")]).unwrap());
    assert_eq!(
        (first.status.as_str(), first.serial.as_deref(), first.site.as_str()),
        ("downloaded", Some("01"), "dc7")
    );
    assert_eq!(court.ask(system(), vec![download("02")]), Err(RefusalCode::PreconditionFailed));
    // It does not go by itself any more.
    assert!(court.judge.expire(10_000_000_000_000).0.iter().all(|change| change.before.as_ref().unwrap().id != "p"));

    let revoke = |reason: Value| {
        let action = "revoke".to_owned();
        operation("edge_packages", "p", Act::Do { action, fields: fields(json!({"reason": reason})) })
    };
    assert_eq!(court.ask(by_token("operator"), vec![revoke(json!("x"))]), Err(RefusalCode::Forbidden));
    assert_eq!(court.ask(by_token("admin"), vec![revoke(json!("x".repeat(1001)))]), Err(RefusalCode::Invalid));
    let revoked = row(&court.ask(by_token("admin"), vec![revoke(json!("lost"))]).unwrap());
    assert_eq!((revoked.status.as_str(), revoked.revoked_by.as_deref()), ("revoked", Some("admin")));
    assert_eq!(revoked.revoked_because.as_deref(), Some("lost"));
    // Once is for good, and the name is free.
    assert!(court.ask(by_token("admin"), vec![revoke(json!("again"))]).unwrap().is_empty());
    court.ask(by_token("admin"), vec![make("q")]).unwrap();
    // What nobody downloads in time goes; what was revoked later.
    let gone = |court: &mut Court, at: i64| -> Vec<String> {
        court.judge.expire(at).0.iter().map(|change| change.before.as_ref().unwrap().id.clone()).collect()
    };
    assert_eq!(gone(&mut court, 1_000_000_000), ["q"]);
    assert_eq!(gone(&mut court, 100 * 86_400_000_000), ["p"]);

    // What belongs to a set of files is revoked all the same, and nothing else of it.
    let owned = Operation { owner: "files".to_owned(), ..make("r") };
    court.ask(by_token("admin"), vec![owned]).unwrap();
    let notes = update("edge_packages", "r", json!({"notes": "x"}));
    assert_eq!(court.ask(by_token("admin"), vec![notes]), Err(RefusalCode::Owned));
    let revoke = operation("edge_packages", "r", Act::Do { action: "revoke".to_owned(), fields: Fields::new() });
    let changes = court.ask(by_token("admin"), vec![revoke]).unwrap();
    assert_eq!(changes[0].after.as_ref().unwrap().owner, "files");
}

#[test]
fn authorities_are_made_by_the_program_and_ended_by_people() {
    let mut court = Court::with_tokens();
    let made = json!({"certificate": "c", "fingerprint": "f", "not_after": 2_000_000_000_000_i64, "key": "sealed:k"});
    let make = || create("certificate_authorities", "agents", made.clone());
    assert_eq!(court.ask(by_token("admin"), vec![make()]), Err(RefusalCode::Forbidden));
    court.ask(Principal::of_host(PrincipalKind::System, "enrolment"), vec![make()]).unwrap();
    let end = || operation("certificate_authorities", "agents", Act::Delete);
    assert_eq!(court.ask(by_token("operator"), vec![end()]), Err(RefusalCode::Forbidden));
    court.ask(by_token("admin"), vec![end()]).unwrap();
}

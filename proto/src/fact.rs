//! Facts that people and configuration files state: everything but listeners, paths and limits that can change an
//! output is one of these, and reaches the dataflow through the ledger like any packet.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::enrich::Rule;
use crate::flow::tables::FlowTables;
use crate::record::{IdKind, Identifier, RecordKey, SourceKind};
use crate::resource::Command;

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Actor {
    /// A person, a token's name, or `system`.
    pub name: String,
    /// What they may do.
    pub role: Role,
}

/// What an actor may do; each includes the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Read.
    Viewer,
    /// Acknowledge, comment.
    Helpdesk,
    /// Silence, link, life cycles of devices, imports.
    Operator,
    /// Users, roles, tokens, rules, receivers, sources.
    Admin,
}

impl Role {
    /// Every role that is built in, least first.
    pub const ALL: [Role; 4] = [Role::Viewer, Role::Helpdesk, Role::Operator, Role::Admin];

    /// As facts, rows and people spell it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Helpdesk => "helpdesk",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }

    /// The built-in role of that name.
    pub fn named(name: &str) -> Option<Self> {
        Role::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// A statement that can change outputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum Fact {
    /// Somebody states what resources there are. What became of it is decided where resources are judged.
    Command(Box<Command>),
    /// Somebody could not sign in.
    SignInFailed {
        /// Customer.
        tenant: String,
        /// The name that was said; nobody may have it.
        user: String,
        /// Where it was said from.
        address: Option<String>,
        /// How they tried, and what was wrong, where it is more than a wrong password.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    },
    /// A receiver of notifications exists, or no longer does.
    Receiver(Receiver),
    /// The receiver of that name is gone.
    ReceiverGone {
        /// Customer.
        tenant: String,
        /// Its name.
        name: String,
    },
    /// A token exists. Only its hash is known.
    Token(Token),
    /// The token of that id lets nobody in any more.
    TokenRevoked {
        /// Customer.
        tenant: String,
        /// Its id.
        id: String,
        /// What it was for.
        name: String,
        /// Who.
        actor: Actor,
        /// Why.
        reason: String,
    },
    /// A source instance exists: its identifiers are a namespace of their own.
    Instance {
        /// Customer.
        tenant: String,
        /// The kind of identifier it counts.
        kind: IdKind,
        /// Its name; `<type>.<instance>` for integrations.
        instance: String,
        /// Whether its devices bear the bare names: the first of its kind.
        legacy: bool,
    },
    /// A source says only what it knows: what a record of it does not say it said before.
    PartialSource {
        /// Customer.
        tenant: String,
        /// Its kind.
        kind: SourceKind,
        /// Its instance, as records name it.
        instance: String,
        /// Whether it is.
        partial: bool,
    },
    /// An operator says that two identifiers name one device, or two.
    Link(Link),
    /// The link of that id no longer holds.
    LinkGone {
        /// Customer.
        tenant: String,
        /// Its id.
        id: String,
        /// Who.
        actor: Actor,
        /// Why.
        reason: String,
    },
    /// How far an address alone links devices of different sources.
    IpLink {
        /// Customer.
        tenant: String,
        /// How far.
        policy: IpLink,
        /// Who.
        actor: Actor,
        /// Why.
        reason: String,
    },
    /// How far one run of a source may go before somebody is asked.
    Brakes {
        /// Customer.
        tenant: String,
        /// Devices that may become part of others.
        max_merges: u32,
        /// Records that it may put into one device.
        max_component: u32,
        /// Who.
        actor: Actor,
        /// Why.
        reason: String,
    },
    /// A name that a device had in a system that was replaced.
    ImportedUid(ImportedUid),
    /// Devices that are spoken of by one name.
    DeviceGroup(DeviceGroup),
    /// Nothing is spoken of by that name any more.
    DeviceGroupGone {
        /// Customer.
        tenant: String,
        /// The name.
        name: String,
        /// Who.
        actor: Actor,
        /// Why.
        reason: String,
    },
    /// The rules that tell what devices are, all of them.
    EnrichmentRules {
        /// In the order of their names.
        rules: Vec<Rule>,
    },
    /// What is known of exporters, interfaces, networks and applications, all of it.
    FlowTables {
        /// The tables.
        tables: Box<FlowTables>,
    },
    /// What becomes of a run that the brake holds.
    RunDecision(RunDecision),
    /// A step of a device's life cycle, asked for by an actor.
    DeviceStep(DeviceStep),
    /// Records of devices that were deleted a retention ago, and that nobody has sighted since: they go.
    Reaped {
        /// Customer.
        tenant: String,
        /// Which, and the site of each.
        records: Vec<(RecordKey, String)>,
    },
    /// The program found something wrong with itself, or that it is right again.
    Condition(OwnCondition),
    /// A snapshot is wanted after this epoch.
    Snapshot,
    /// An operator says that the wall clock is right, though the ledger's clock was not following it.
    ClockAccepted {
        /// Customer of the actor; the clock is everybody's.
        tenant: String,
        /// What the ledger's clock showed, milliseconds since 1970.
        clock_ms: i64,
        /// What the wall clock showed, milliseconds since 1970.
        wall_ms: i64,
        /// Who.
        actor: Actor,
        /// Why.
        reason: String,
    },
    /// A step of an alert's life cycle, asked for by an actor.
    AlertStep {
        /// Customer.
        tenant: String,
        /// The alert.
        alert_id: String,
        /// Where to.
        to: AlertStatus,
        /// Until when, milliseconds since 1970; for `suppressed` only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until_ms: Option<i64>,
        /// Who.
        actor: Actor,
        /// Why.
        reason: String,
        /// Names the command, so that its outcome can be told.
        command_id: String,
    },
    /// Something an actor has to say about an alert; it stays where it is.
    AlertComment {
        /// Customer.
        tenant: String,
        /// The alert.
        alert_id: String,
        /// Who.
        actor: Actor,
        /// What.
        text: String,
        /// Names the command, so that its outcome can be told.
        command_id: String,
    },
    /// Messages that a receiver did not take are sent to it again.
    Replay {
        /// Customer.
        tenant: String,
        /// The receiver.
        receiver: String,
        /// Who.
        actor: Actor,
        /// Why.
        reason: String,
        /// Names the command, so that its outcome can be told.
        command_id: String,
    },
    /// What became of a notification.
    Delivery {
        /// Customer.
        tenant: String,
        /// The receiver.
        receiver: String,
        /// The group it was about.
        group_key: String,
        /// The message.
        notification_id: String,
        /// Whether the receiver took it; otherwise it is a dead letter.
        delivered: bool,
        /// Why not, or the receiver's answer.
        detail: String,
    },
}

impl Fact {
    /// What the fact is about: a later fact about the same replaces it. `None` for what happens once.
    pub fn subject(&self) -> Option<String> {
        match self {
            Fact::Receiver(r) => Some(format!("receiver/{}/{}", r.tenant, r.name)),
            Fact::ReceiverGone { tenant, name } => Some(format!("receiver/{tenant}/{name}")),
            Fact::Token(t) => Some(format!("token/{}", t.id)),
            Fact::TokenRevoked { id, .. } => Some(format!("token/{id}")),
            Fact::Instance { tenant, kind, instance, .. } => {
                Some(format!("instance/{tenant}/{}/{instance}", kind.name()))
            }
            Fact::PartialSource { tenant, kind, instance, .. } => {
                Some(format!("partial/{tenant}/{}/{instance}", kind.name()))
            }
            Fact::Link(link) => Some(format!("link/{}/{}", link.tenant, link.id)),
            Fact::LinkGone { tenant, id, .. } => Some(format!("link/{tenant}/{id}")),
            Fact::IpLink { tenant, .. } => Some(format!("ip_link/{tenant}")),
            Fact::Brakes { tenant, .. } => Some(format!("brakes/{tenant}")),
            Fact::ImportedUid(i) => Some(format!("imported_uid/{}/{}/{}", i.tenant, i.partition, i.uid)),
            Fact::DeviceGroup(group) => Some(format!("device_group/{}/{}", group.tenant, group.name)),
            Fact::DeviceGroupGone { tenant, name, .. } => Some(format!("device_group/{tenant}/{name}")),
            Fact::EnrichmentRules { .. } => Some("enrichment_rules".to_owned()),
            Fact::FlowTables { .. } => Some("flow_tables".to_owned()),
            Fact::Condition(c) => Some(format!("condition/{}/{}/{}", c.tenant, c.rule, c.entity)),
            Fact::Snapshot
            | Fact::Command(_)
            | Fact::SignInFailed { .. }
            | Fact::ClockAccepted { .. }
            | Fact::RunDecision(_)
            | Fact::DeviceStep(_)
            | Fact::Reaped { .. }
            | Fact::AlertStep { .. }
            | Fact::AlertComment { .. }
            | Fact::Replay { .. }
            | Fact::Delivery { .. } => None,
        }
    }
}

/// What the audit says of a fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audited {
    /// Whose audit it is in; `None` for that of whoever stated it.
    pub tenant: Option<String>,
    /// Who stated it; `None` where only its feed is known.
    pub actor: Option<String>,
    /// What was done.
    pub action: String,
    /// To what.
    pub subject: String,
    /// Why.
    pub reason: Option<String>,
    /// The fact without its secrets, JSON.
    pub detail: String,
}

impl Fact {
    /// What the audit says of it; `None` for what is no act: a wish for a snapshot, a delivery (`notifications` has it).
    pub fn audited(&self) -> Option<Audited> {
        let mut shown = self.clone();
        if let Fact::Receiver(receiver) = &mut shown {
            receiver.headers.values_mut().for_each(|value| *value = "…".to_owned());
            for secret in [&mut receiver.credential, &mut receiver.signing_key] {
                *secret = secret.as_ref().map(|_| "…".to_owned());
            }
            receiver.url = without_secrets(&receiver.url);
        }
        if let Fact::Token(token) = &mut shown {
            token.sha256.clear();
        }
        // Its subject says how many there are; a table may have a hundred thousand.
        if let Fact::FlowTables { tables } = &mut shown {
            **tables = FlowTables::default();
        }
        let detail = serde_json::to_value(&shown).ok()?;
        let action = detail.get("fact")?.as_str()?.to_owned();
        let (tenant, actor, subject, reason) = match self {
            Fact::Receiver(r) => (&r.tenant, None, r.name.clone(), None),
            Fact::SignInFailed { tenant, user, reason, .. } => {
                (tenant, None, user.clone(), (!reason.is_empty()).then(|| reason.clone()))
            }
            Fact::ReceiverGone { tenant, name } => (tenant, None, name.clone(), None),
            Fact::Token(t) => (&t.tenant, None, t.name.clone(), None),
            Fact::TokenRevoked { tenant, name, actor, reason, .. } => {
                let reason = (!reason.is_empty()).then(|| reason.clone());
                (tenant, Some(actor.name.clone()), name.clone(), reason)
            }
            Fact::Instance { tenant, instance, .. } => (tenant, None, instance.clone(), None),
            Fact::PartialSource { tenant, instance, .. } => (tenant, None, instance.clone(), None),
            Fact::Link(l) => (&l.tenant, Some(l.actor.name.clone()), l.id.clone(), Some(l.reason.clone())),
            Fact::LinkGone { tenant, id, actor, reason } => {
                (tenant, Some(actor.name.clone()), id.clone(), Some(reason.clone()))
            }
            Fact::IpLink { tenant, actor, reason, .. } => {
                (tenant, Some(actor.name.clone()), "ip_link".to_owned(), Some(reason.clone()))
            }
            Fact::Brakes { tenant, actor, reason, .. } => {
                (tenant, Some(actor.name.clone()), "brakes".to_owned(), Some(reason.clone()))
            }
            Fact::RunDecision(d) => {
                let source = format!("{}/{}/{}", d.kind.name(), d.instance, d.run);
                (&d.tenant, Some(d.actor.name.clone()), source, Some(d.reason.clone()))
            }
            Fact::DeviceStep(s) => (&s.tenant, Some(s.actor.name.clone()), s.uid.clone(), Some(s.reason.clone())),
            Fact::Reaped { tenant, records } => {
                (tenant, Some("system".to_owned()), format!("{} records", records.len()), None)
            }
            Fact::DeviceGroup(g) => (&g.tenant, Some(g.actor.name.clone()), g.name.clone(), Some(g.reason.clone())),
            Fact::DeviceGroupGone { tenant, name, actor, reason } => {
                (tenant, Some(actor.name.clone()), name.clone(), Some(reason.clone()))
            }
            Fact::EnrichmentRules { rules } => (&String::new(), None, format!("{} rules", rules.len()), None),
            Fact::FlowTables { tables } => (&String::new(), None, tables.summary(), None),
            Fact::Condition(c) => (&c.tenant, None, format!("{}/{}", c.rule, c.entity), None),
            Fact::AlertStep { tenant, alert_id, actor, reason, .. } => {
                let reason = (!reason.is_empty()).then(|| reason.clone());
                (tenant, Some(actor.name.clone()), alert_id.clone(), reason)
            }
            Fact::AlertComment { tenant, alert_id, actor, text, .. } => {
                (tenant, Some(actor.name.clone()), alert_id.clone(), Some(text.clone()))
            }
            Fact::Replay { tenant, receiver, actor, reason, .. } => {
                let reason = (!reason.is_empty()).then(|| reason.clone());
                (tenant, Some(actor.name.clone()), receiver.clone(), reason)
            }
            Fact::ClockAccepted { tenant, actor, reason, .. } => {
                (tenant, Some(actor.name.clone()), "clock".to_owned(), Some(reason.clone()))
            }
            // Thousands at once: the run that brought them is told, not each. What becomes of a command is told where it is
            // judged.
            Fact::Snapshot | Fact::Command(_) | Fact::Delivery { .. } | Fact::ImportedUid(_) => return None,
        };
        let tenant = (!tenant.is_empty()).then(|| tenant.clone());
        Some(Audited { tenant, actor, action, subject, reason, detail: detail.to_string() })
    }
}

/// A name that a device had in a system that was replaced. It never links: it leads to whoever holds the identifiers that
/// the device had there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedUid {
    /// Customer.
    pub tenant: String,
    /// Site.
    pub partition: String,
    /// The name.
    pub uid: String,
    /// The identifiers, in order of priority.
    pub identifiers: Vec<Identifier>,
}

/// Devices that an operator speaks of by one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceGroup {
    /// Customer.
    pub tenant: String,
    /// The name.
    pub name: String,
    /// What they are like, in terms of the query language; `None` where they are listed.
    pub condition: Option<String>,
    /// Those that are listed, by uid.
    pub members: Vec<String>,
    /// What it is for.
    pub description: String,
    /// Who.
    pub actor: Actor,
    /// Why.
    pub reason: String,
}

/// What an operator says of two identifiers. It holds until it is taken back, whatever sources say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Customer.
    pub tenant: String,
    /// Site; links never cross one.
    pub partition: String,
    /// Its id.
    pub id: String,
    /// Whether they name one device, or two.
    pub kind: LinkKind,
    /// One end.
    pub a: Identifier,
    /// The other.
    pub b: Identifier,
    /// Who.
    pub actor: Actor,
    /// Why.
    pub reason: String,
}

/// What a link says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkKind {
    /// One device.
    Must,
    /// Two devices.
    Cannot,
}

/// What becomes of a run that the brake holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunDecision {
    /// Customer.
    pub tenant: String,
    /// Kind of source.
    pub kind: SourceKind,
    /// Its instance.
    pub instance: String,
    /// The run.
    pub run: String,
    /// Whether what it lacks goes, or stays.
    pub release: bool,
    /// Who.
    pub actor: Actor,
    /// Why.
    pub reason: String,
    /// Names the command, so that its outcome can be told.
    pub command_id: String,
}

/// A step of a device's life cycle. It is said of what names the device best, and goes where that goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStep {
    /// Customer.
    pub tenant: String,
    /// Site.
    pub partition: String,
    /// The device, as the actor called it.
    pub uid: String,
    /// What names it best.
    pub anchor: Anchor,
    /// Where it stood when the actor asked.
    pub from: Stage,
    /// What is asked.
    pub act: DeviceAct,
    /// Who.
    pub actor: Actor,
    /// Why.
    pub reason: String,
    /// Names the command, so that its outcome can be told.
    pub command_id: String,
}

/// What names a device best.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Anchor {
    /// An identifier, an address if it has no other.
    Identifier(Identifier),
    /// Its only record.
    Record(RecordKey),
}

/// What is asked of a device's life cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceAct {
    /// It is looked after.
    Manage,
    /// It is out of service; sightings do not change that.
    Decommission,
    /// Hide it until somebody but a sweep sights it again.
    Delete,
    /// Show it again.
    Restore,
}

impl DeviceAct {
    /// As paths and errors spell it.
    pub fn name(self) -> &'static str {
        match self {
            DeviceAct::Manage => "manage",
            DeviceAct::Decommission => "decommission",
            DeviceAct::Delete => "delete",
            DeviceAct::Restore => "restore",
        }
    }
}

/// Stages of a device's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Only an address is known of it.
    Discovered,
    /// A strong identifier or a MAC names it.
    Identified,
    /// It is looked after.
    Managed,
    /// Out of service.
    Decommissioned,
}

impl Stage {
    /// As rows spell it.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Discovered => "discovered",
            Stage::Identified => "identified",
            Stage::Managed => "managed",
            Stage::Decommissioned => "decommissioned",
        }
    }

    /// The stage that rows spell so.
    pub fn of_name(name: &str) -> Option<Stage> {
        [Stage::Discovered, Stage::Identified, Stage::Managed, Stage::Decommissioned]
            .into_iter()
            .find(|stage| stage.name() == name)
    }
}

/// How far an address alone links devices of different sources, set a tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IpLink {
    /// With a host name or a MAC in common, or after three runs of both.
    #[default]
    Corroborated,
    /// At once.
    Immediate,
    /// Not at all; nor does anything else that the sources do not say themselves.
    Off,
}

/// A URL without user, password and query.
pub fn without_secrets(url: &str) -> String {
    let shown = url.split('?').next().unwrap_or_default();
    let Some((scheme, rest)) = shown.split_once("://") else { return shown.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

/// A condition of the program itself: its clock, its sinks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnCondition {
    /// Whom it is told to.
    pub tenant: String,
    /// What was looked at: `clock-step`, `sink-down`.
    pub rule: String,
    /// Which one.
    pub entity: String,
    /// As alerts have it.
    pub severity: String,
    /// One line for a person.
    pub title: String,
    /// More of it.
    pub description: String,
    /// Whether it holds.
    pub holds: bool,
}

/// Steps of an alert's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertStatus {
    /// Raised; nobody took it yet.
    Pending,
    /// Somebody took it.
    Acknowledged,
    /// It waited too long.
    Escalated,
    /// Over.
    Resolved,
    /// Not wanted.
    Suppressed,
}

impl AlertStatus {
    /// As rows spell it.
    pub fn name(self) -> &'static str {
        match self {
            AlertStatus::Pending => "pending",
            AlertStatus::Acknowledged => "acknowledged",
            AlertStatus::Escalated => "escalated",
            AlertStatus::Resolved => "resolved",
            AlertStatus::Suppressed => "suppressed",
        }
    }
}

/// Who is told, how, and how often.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Receiver {
    /// Customer.
    pub tenant: String,
    /// Its name, unique in the tenant.
    pub name: String,
    /// Where to POST.
    pub url: String,
    /// Shape of the payload.
    pub kind: ReceiverKind,
    /// Labels whose values make a group.
    pub group_by: Vec<String>,
    /// How long a new group waits for company, milliseconds.
    pub group_wait_ms: i64,
    /// Least time between messages about a group that changed, milliseconds.
    pub group_interval_ms: i64,
    /// Time after which an unchanged firing group is told again, milliseconds.
    pub repeat_interval_ms: i64,
    /// Whether the end of a condition is told too.
    pub send_resolved: bool,
    /// Headers, secrets by reference.
    pub headers: BTreeMap<String, String>,
    /// The key that PagerDuty or Opsgenie knows us by, by reference.
    #[serde(default)]
    pub credential: Option<String>,
    /// The key that messages are signed with, by reference.
    #[serde(default)]
    pub signing_key: Option<String>,
    /// What a message of kind `template` says.
    #[serde(default)]
    pub template: Option<String>,
    /// The configuration file states it: who writes that may have the host ask whatever the host reaches.
    #[serde(default)]
    pub of_host: bool,
}

impl Receiver {
    /// One that is told everything, all of it in one group, as soon as it happens.
    pub fn new(tenant: &str, name: &str, kind: ReceiverKind, url: &str) -> Self {
        Receiver {
            tenant: tenant.to_owned(),
            name: name.to_owned(),
            url: url.to_owned(),
            kind,
            group_by: Vec::new(),
            group_wait_ms: 0,
            group_interval_ms: 0,
            repeat_interval_ms: 4 * 3600 * 1000,
            send_resolved: true,
            headers: BTreeMap::new(),
            credential: None,
            signing_key: None,
            template: None,
            of_host: false,
        }
    }
}

/// Shape of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiverKind {
    /// Alertmanager's webhook payload, version 4.
    Alertmanager,
    /// Alertmanager's own API, `/api/v2/alerts`.
    AlertmanagerApi,
    /// ServiceRadar's.
    Serviceradar,
    /// Slack's incoming webhooks.
    Slack,
    /// Discord's webhooks.
    Discord,
    /// Microsoft Teams' workflows: an adaptive card.
    Teams,
    /// PagerDuty's events, version 2: one an alert.
    Pagerduty,
    /// Opsgenie's alerts: one request an alert.
    Opsgenie,
    /// An OCSF Detection Finding an alert.
    Ocsf,
    /// What its template makes.
    Template,
    /// Mail.
    Email,
}

impl ReceiverKind {
    /// All of them.
    pub const ALL: [ReceiverKind; 11] = [
        ReceiverKind::Alertmanager,
        ReceiverKind::AlertmanagerApi,
        ReceiverKind::Serviceradar,
        ReceiverKind::Slack,
        ReceiverKind::Discord,
        ReceiverKind::Teams,
        ReceiverKind::Pagerduty,
        ReceiverKind::Opsgenie,
        ReceiverKind::Ocsf,
        ReceiverKind::Template,
        ReceiverKind::Email,
    ];

    /// Whether it knows each alert by itself, in whatever group it is told of it: what one group says of an alert is then what all
    /// of them say.
    pub fn knows_alerts(self) -> bool {
        matches!(
            self,
            ReceiverKind::AlertmanagerApi | ReceiverKind::Pagerduty | ReceiverKind::Opsgenie | ReceiverKind::Ocsf
        )
    }

    /// As rows spell it.
    pub fn name(self) -> &'static str {
        match self {
            ReceiverKind::Alertmanager => "alertmanager",
            ReceiverKind::AlertmanagerApi => "alertmanager_api",
            ReceiverKind::Serviceradar => "serviceradar",
            ReceiverKind::Slack => "slack",
            ReceiverKind::Discord => "discord",
            ReceiverKind::Teams => "teams",
            ReceiverKind::Pagerduty => "pagerduty",
            ReceiverKind::Opsgenie => "opsgenie",
            ReceiverKind::Ocsf => "ocsf",
            ReceiverKind::Template => "template",
            ReceiverKind::Email => "email",
        }
    }

    /// Of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A bearer token, known by its hash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Token {
    /// Its id; not a secret.
    pub id: String,
    /// What it is for, in words.
    pub name: String,
    /// SHA-256 of the token, hex.
    pub sha256: String,
    /// Customer.
    pub tenant: String,
    /// What it may do.
    pub role: Role,
    /// The sites it is bound to; empty for all.
    pub partitions: Vec<String>,
    /// When it ends, milliseconds since 1970.
    pub expires_ms: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audit_shows_no_secret() {
        let receiver = Receiver {
            tenant: "t".into(),
            name: "ops".into(),
            url: "https://user:hush@host:1/hook/x?key=hush".into(),
            kind: ReceiverKind::Alertmanager,
            group_by: vec![],
            group_wait_ms: 0,
            group_interval_ms: 0,
            repeat_interval_ms: 0,
            send_resolved: true,
            headers: [("Authorization".to_owned(), "Bearer hush".to_owned())].into(),
            credential: Some("hush".into()),
            signing_key: Some("hush".into()),
            template: None,
            of_host: true,
        };
        let audited = Fact::Receiver(receiver).audited().unwrap();
        assert_eq!((audited.action.as_str(), audited.subject.as_str()), ("receiver", "ops"));
        assert!(audited.detail.contains("https://host:1/hook/x") && !audited.detail.contains("hush"), "{audited:?}");
    }

    #[test]
    fn a_revocation_takes_the_place_of_its_token_and_is_in_the_audit_of_its_tenant() {
        let token = Token {
            id: "0a1b".into(),
            name: "grafana".into(),
            sha256: "hush".into(),
            tenant: "t".into(),
            role: Role::Viewer,
            partitions: vec![],
            expires_ms: None,
        };
        let revoked = Fact::TokenRevoked {
            tenant: "t".into(),
            id: "0a1b".into(),
            name: "grafana".into(),
            actor: Actor { name: "ann".into(), role: Role::Admin },
            reason: "lost".into(),
        };
        assert_eq!(revoked.subject(), Fact::Token(token).subject());
        let audited = revoked.audited().unwrap();
        let said = (audited.tenant.as_deref(), audited.actor.as_deref(), audited.action.as_str());
        assert_eq!(said, (Some("t"), Some("ann"), "token_revoked"));
        assert_eq!((audited.subject.as_str(), audited.reason.as_deref()), ("grafana", Some("lost")));
        assert!(audited.detail.contains("0a1b"), "{audited:?}");
    }
}

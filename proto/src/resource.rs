//! Resources: whatever operators and administrators state and that stands until they state otherwise: users, roles, tokens,
//! receivers, groups, links.
//!
//! Somebody states something by a [`Command`]: one entry of the ledger, all of whose operations are done or none. What becomes
//! of it is decided in the dataflow at the command's epoch and position, and nowhere else; it is told as a [`Judgement`]. What
//! kinds of resources there are, and what is right about them, is declared in `reconcile::resources`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::rows::Table;

/// Fields by name. Instants are numbers: microseconds since 1970.
pub type Fields = BTreeMap<String, Value>;

/// Who states something, as it was let in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Principal {
    /// What lets it in.
    pub kind: PrincipalKind,
    /// The id of the token or session; empty for the others.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The name of the token or user, or of the part of the program.
    pub name: String,
    /// The address it comes from, where it comes from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

impl Principal {
    /// A part of the program, or the host's administrator.
    pub fn of_host(kind: PrincipalKind, name: &str) -> Self {
        Principal { kind, id: String::new(), name: name.to_owned(), address: None }
    }
}

/// What lets a principal in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalKind {
    /// An API token.
    Token,
    /// A session of a user who signed in.
    Session,
    /// The configuration file.
    Configuration,
    /// Who administers the host, by the command line.
    Host,
    /// The program itself.
    System,
}

/// Something that is stated: all of its operations are done, or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Customer.
    pub tenant: String,
    /// Names it. A command of an id that was answered is answered again, and done no second time.
    pub command_id: String,
    /// What was asked, hashed, where the id is the asker's own (`Idempotency-Key`): the same id with another one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Who.
    pub principal: Principal,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Also where nobody is left then who administers the tenant.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// What.
    pub operations: Vec<Operation>,
}

/// One thing that is done to one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// The kind of resource, as its entity is called: `users`.
    pub resource: String,
    /// Which one.
    pub id: String,
    /// What is done.
    #[serde(flatten)]
    pub act: Act,
    /// How it must stand.
    #[serde(default, skip_serializing_if = "Condition::is_any")]
    pub condition: Condition,
    /// The set of files it belongs to from now on; nobody else changes it then. Empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub owner: String,
}

/// What is done to a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case")]
pub enum Act {
    /// It begins; there must be none.
    Create {
        /// What it says.
        fields: Fields,
    },
    /// What is named is what it says from now on; null is the default.
    Update {
        /// What changes.
        fields: Fields,
    },
    /// It says this and nothing else, whether there was one or not. Secrets that are not named stay.
    Put {
        /// What it says.
        fields: Fields,
    },
    /// It ends.
    Delete,
    /// One of the steps that are declared for it.
    Do {
        /// Which.
        action: String,
        /// What the step is told.
        #[serde(default)]
        fields: Fields,
    },
}

impl Act {
    /// As the audit and permissions spell it.
    pub fn verb(&self) -> &str {
        match self {
            Act::Create { .. } => "create",
            Act::Update { .. } => "update",
            Act::Put { .. } => "put",
            Act::Delete => "delete",
            Act::Do { action, .. } => action,
        }
    }
}

/// How a resource must stand for an operation to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// However it stands.
    #[default]
    Any,
    /// There is none (`If-None-Match: *`).
    Absent,
    /// It was last changed at this epoch (`If-Match`).
    Epoch(u64),
}

impl Condition {
    fn is_any(&self) -> bool {
        *self == Condition::Any
    }
}

/// A resource as it stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Resource {
    /// The kind, as its entity is called.
    pub resource: String,
    /// Customer.
    pub tenant: String,
    /// Which one.
    pub id: String,
    /// What everybody may see of it who may see it at all, JSON in the order of names.
    #[serde(with = "as_text")]
    pub fields: Shown,
    /// What nobody is shown, sealed or hashed before it was stated.
    pub secrets: BTreeMap<String, String>,
    /// The set of files it belongs to; empty for none.
    pub owner: String,
    /// When it began, microseconds since 1970.
    pub created_us: i64,
    /// Who began it.
    pub created_by: String,
    /// When it was last changed.
    pub updated_us: i64,
    /// Who changed it.
    pub updated_by: String,
    /// The epoch of that change.
    pub epoch: u64,
}

/// Fields that are compared and ordered by their text.
#[derive(Clone, Debug, Default)]
pub struct Shown(pub Fields);

impl Shown {
    fn text(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }
}

impl PartialEq for Shown {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Shown {}

impl PartialOrd for Shown {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Shown {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text().cmp(&other.text())
    }
}

/// Fields are one text in snapshots, whose format does not describe itself.
mod as_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

    use super::Shown;

    pub(super) fn serialize<S: Serializer>(shown: &Shown, to: S) -> Result<S::Ok, S::Error> {
        serde_json::to_string(&shown.0).map_err(ser::Error::custom)?.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Shown, D::Error> {
        let text = String::deserialize(from)?;
        serde_json::from_str(&text).map(Shown).map_err(de::Error::custom)
    }
}

impl Resource {
    /// One that says this, of nobody and before all time: to be tried, or to be filled in.
    pub fn of(kind: Table, tenant: &str, id: &str, fields: Fields) -> Resource {
        Resource {
            resource: kind.name().to_owned(),
            tenant: tenant.to_owned(),
            id: id.to_owned(),
            fields: Shown(fields),
            secrets: BTreeMap::new(),
            owner: String::new(),
            created_us: 0,
            created_by: String::new(),
            updated_us: 0,
            updated_by: String::new(),
            epoch: 0,
        }
    }

    /// A field that is text.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.fields.0.get(field)?.as_str()
    }

    /// A field that is true or false; false where it is missing.
    pub fn flag(&self, field: &str) -> bool {
        self.fields.0.get(field).and_then(Value::as_bool).unwrap_or_default()
    }

    /// A field that is a number, or an instant.
    pub fn number(&self, field: &str) -> Option<i64> {
        self.fields.0.get(field)?.as_i64()
    }

    /// A field that is a list of texts; empty where it is missing.
    pub fn texts(&self, field: &str) -> Vec<String> {
        let texts = self.fields.0.get(field).and_then(Value::as_array).into_iter().flatten();
        texts.filter_map(|text| text.as_str().map(str::to_owned)).collect()
    }
}

/// Why a command is not done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Refusal {
    /// Names the kind of refusal, for programs.
    pub code: RefusalCode,
    /// What is wrong and what to do about it.
    pub detail: String,
    /// Which of the operations.
    pub operation: usize,
    /// The field that is wrong, if it is one.
    pub field: Option<String>,
}

/// Kinds of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// The principal may not do this.
    Forbidden,
    /// There is no such resource.
    NotFound,
    /// There is one already.
    Exists,
    /// Somebody else was first.
    PreconditionFailed,
    /// It belongs to a set of files.
    Owned,
    /// A field is wrong.
    Invalid,
    /// The field never changes.
    Immutable,
    /// What it refers to does not exist, or others refer to it.
    Reference,
    /// There are too many.
    TooMany,
    /// It cannot be done as things stand.
    Conflict,
    /// The id of the command was used for another.
    IdempotencyMismatch,
}

impl RefusalCode {
    /// As programs read it.
    pub fn name(self) -> &'static str {
        match self {
            RefusalCode::Forbidden => "forbidden",
            RefusalCode::NotFound => "not_found",
            RefusalCode::Exists => "exists",
            RefusalCode::PreconditionFailed => "precondition_failed",
            RefusalCode::Owned => "owned",
            RefusalCode::Invalid => "invalid",
            RefusalCode::Immutable => "immutable",
            RefusalCode::Reference => "reference",
            RefusalCode::TooMany => "too_many",
            RefusalCode::Conflict => "conflict",
            RefusalCode::IdempotencyMismatch => "idempotency_mismatch",
        }
    }
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Judgement {
    /// Customer.
    pub tenant: String,
    /// The command.
    pub command_id: String,
    /// What was asked, hashed, where the asker named it.
    pub digest: Option<String>,
    /// The epoch it was judged at: an earlier one where it is answered again.
    pub epoch: u64,
    /// Each operation's resource as it is then, `None` where it is gone; or why nothing was done.
    pub outcome: Result<Vec<Option<Arc<Resource>>>, Refusal>,
}

/// A step of a resource that was taken: for whoever does what it means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Taken {
    /// The resource as it is then.
    pub resource: Arc<Resource>,
    /// Which step.
    pub action: String,
    /// What it was told.
    #[serde(with = "as_text")]
    pub fields: Shown,
    /// The command.
    pub command_id: String,
    /// Which of its operations.
    pub operation: usize,
    /// Who took it.
    pub by: String,
    /// When, microseconds since 1970.
    pub at_us: i64,
    /// The epoch.
    pub epoch: u64,
}

/// What happened to a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ResourceChange {
    /// As it was.
    pub before: Option<Arc<Resource>>,
    /// As it is.
    pub after: Option<Arc<Resource>>,
}

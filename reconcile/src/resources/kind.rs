//! What is declared of a kind of resource: its fields, who may do what to it, what is right about it.
//!
//! The table of the kind (`radarflow_proto::rows`) says what its columns are and what they mean; a [`ResourceKind`] says the
//! rest: which columns people set, within which bounds, and which fields nobody is shown.

use chrono::DateTime;
use radarflow_proto::cell::Time;
use radarflow_proto::fact::Role;
use radarflow_proto::resource::{Fields, RefusalCode, Resource};
use radarflow_proto::rows::{StateRow, Table};
use serde_json::{Map, Value, json};

use super::judge::At;
use super::world::World;
use crate::access::Permission;

/// The partition of what is the whole tenant's.
const WHOLE: &str = "default";
/// Instants that may be stated, microseconds since 1970: calendars reckon with these everywhere.
const INSTANTS: std::ops::Range<i64> = 0..253_402_214_400_000_000;
/// Bytes of an id.
pub const MAX_ID: usize = 200;

/// A kind of resource.
pub struct ResourceKind {
    /// Its table, entity and path: `users`.
    pub table: Table,
    /// One of it: `user`.
    pub singular: &'static str,
    /// The column that names one.
    pub id: &'static str,
    /// What people set.
    pub fields: &'static [Field],
    /// Steps beside making, changing and ending it.
    pub actions: &'static [ResourceAction],
    /// Least built-in role that sees it.
    pub read: Role,
    /// Least built-in role that makes, changes and ends it.
    pub write: Role,
    /// Whether people make it, or only the program does.
    pub made_by: MadeBy,
    /// How many a tenant has at most.
    pub most: usize,
    /// The field that says when it is over and goes by itself.
    pub expires: Option<&'static str>,
    /// What else must be right.
    pub check: fn(&World<'_>, &Resource) -> Result<(), Wrong>,
    /// Columns that follow from what is not shown.
    pub derived: fn(&Resource) -> Vec<(&'static str, Value)>,
}

/// Who makes resources of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MadeBy {
    /// Whoever may.
    People,
    /// The program, for somebody; people end it.
    Program,
}

/// A step of a resource.
pub struct ResourceAction {
    /// Its name, the last part of its path.
    pub name: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// Least built-in role that may do it.
    pub least: Role,
    /// The secrets that it takes away.
    pub clears: &'static [&'static str],
    /// What it is told.
    pub fields: &'static [Field],
    /// Whether it is taken of what belongs to a set of files as well.
    pub whosever: bool,
    /// What it changes, by whom, of how it stood, as told.
    pub sets: fn(At, &str, &Resource, &Fields) -> Fields,
    /// Whether it can be taken, on what it and everything beside it leave.
    pub check: fn(&World<'_>, &Resource, &Fields) -> Result<(), Wrong>,
}

impl ResourceAction {
    /// One that is told nothing and can always be taken.
    pub const fn new(name: &'static str, doc: &'static str, least: Role) -> Self {
        ResourceAction {
            name,
            doc,
            least,
            clears: &[],
            fields: &[],
            whosever: false,
            sets: |_, _, _, _| Fields::new(),
            check: |_, _, _| Ok(()),
        }
    }

    /// What it is told, each read, what is not said by default.
    ///
    /// # Errors
    /// What is wrong with the first that is wrong.
    pub fn read(&self, said: &Fields) -> Result<Fields, Wrong> {
        if let Some(unknown) = said.keys().find(|name| !self.fields.iter().any(|field| field.name == *name)) {
            let known: Vec<_> = self.fields.iter().map(|field| field.name).collect();
            let known = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
            let detail = format!("{} is told no {unknown}; it is told {known}", self.name);
            return Err(Wrong { code: RefusalCode::Invalid, field: None, detail });
        }
        let read = |field: &Field| {
            let value = field.read(said.get(field.name).unwrap_or(&Value::Null));
            value.map(|value| (field.name.to_owned(), value)).map_err(|detail| Wrong::field(field.name, detail))
        };
        self.fields.iter().map(read).collect()
    }
}

/// A field that is set.
pub struct Field {
    /// Its name; that of the column, unless it is not shown.
    pub name: &'static str,
    /// What it may hold.
    pub holds: Holds,
    /// Whether it must be said.
    pub required: bool,
    /// Whether it is what it was at first.
    pub immutable: bool,
    /// Nobody is shown it; what it is for.
    pub secret: Option<&'static str>,
    /// The program sets it, and people do not.
    pub server: bool,
    /// What no longer holds where it changes, unless it is said again.
    pub drops: &'static [&'static str],
    /// What holds where nothing is said, as JSON.
    pub default: Default,
}

/// What holds where nothing is said.
#[derive(Clone, Copy, Debug)]
pub enum Default {
    /// Nothing.
    Null,
    /// A truth.
    Flag(bool),
    /// A number.
    Number(i64),
    /// A text.
    Text(&'static str),
    /// No text.
    Texts,
}

impl Default {
    /// As JSON.
    pub fn value(self) -> Value {
        match self {
            Default::Null => Value::Null,
            Default::Flag(flag) => json!(flag),
            Default::Number(number) => json!(number),
            Default::Text(text) => json!(text),
            Default::Texts => json!([]),
        }
    }
}

/// What a field may hold.
#[derive(Clone, Copy, Debug)]
pub enum Holds {
    /// Text of at most so many bytes.
    Text(usize),
    /// One of these.
    OneOf(&'static [&'static str]),
    /// True or false.
    Flag,
    /// A whole number from one to another.
    Number(i64, i64),
    /// An instant, RFC 3339.
    Instant,
    /// At most so many texts, of at most so many bytes each.
    Texts(usize, usize),
}

impl Field {
    const fn new(name: &'static str, holds: Holds, default: Default) -> Self {
        Field { name, holds, required: false, immutable: false, secret: None, server: false, drops: &[], default }
    }

    /// Text that may be missing.
    pub const fn text(name: &'static str, most: usize) -> Self {
        Field::new(name, Holds::Text(most), Default::Null)
    }

    /// One of several words.
    pub const fn one_of(name: &'static str, words: &'static [&'static str]) -> Self {
        Field::new(name, Holds::OneOf(words), Default::Null)
    }

    /// True or false.
    pub const fn flag(name: &'static str, default: bool) -> Self {
        Field::new(name, Holds::Flag, Default::Flag(default))
    }

    /// A whole number.
    pub const fn number(name: &'static str, least: i64, most: i64, default: i64) -> Self {
        Field::new(name, Holds::Number(least, most), Default::Number(default))
    }

    /// A whole number that may be missing.
    pub const fn maybe(name: &'static str, least: i64, most: i64) -> Self {
        Field::new(name, Holds::Number(least, most), Default::Null)
    }

    /// An instant that may be missing.
    pub const fn instant(name: &'static str) -> Self {
        Field::new(name, Holds::Instant, Default::Null)
    }

    /// A list of texts.
    pub const fn texts(name: &'static str, most: usize, each: usize) -> Self {
        Field::new(name, Holds::Texts(most, each), Default::Texts)
    }

    /// It must be said.
    #[must_use]
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// It is this where nothing is said.
    #[must_use]
    pub const fn or(mut self, default: &'static str) -> Self {
        self.default = Default::Text(default);
        self
    }

    /// It never changes.
    #[must_use]
    pub const fn immutable(mut self) -> Self {
        self.immutable = true;
        self
    }

    /// The program sets it.
    #[must_use]
    pub const fn server(mut self) -> Self {
        self.server = true;
        self
    }

    /// Where it changes, these no longer hold, unless they are said again.
    #[must_use]
    pub const fn drops(mut self, fields: &'static [&'static str]) -> Self {
        self.drops = fields;
        self
    }

    /// Nobody is shown it.
    #[must_use]
    pub const fn secret(mut self, doc: &'static str) -> Self {
        self.secret = Some(doc);
        self
    }

    /// The value, if it may be held: an instant as a number.
    ///
    /// # Errors
    /// What may be held instead.
    pub fn read(&self, value: &Value) -> Result<Value, String> {
        self.read_within(value, true)
    }

    /// The same; without bounds what was stated when there were none.
    fn read_within(&self, value: &Value, bounds: bool) -> Result<Value, String> {
        if value.is_null() {
            return match self.default {
                Default::Null if self.required => Err("it must be said".to_owned()),
                default => Ok(default.value()),
            };
        }
        match self.holds {
            Holds::Text(most) => match value.as_str() {
                Some(text) if text.len() > most && bounds => Err(format!("it has at most {most} bytes")),
                Some("") if self.required && bounds => Err("it must be said".to_owned()),
                Some(text) if text.contains('\0') => Err("it holds no NUL".to_owned()),
                Some(_) => Ok(value.clone()),
                None => Err("it is text".to_owned()),
            },
            Holds::OneOf(words) => match value.as_str() {
                Some(word) if words.contains(&word) => Ok(value.clone()),
                _ => Err(format!("it is one of {}", words.join(", "))),
            },
            Holds::Flag if value.is_boolean() => Ok(value.clone()),
            Holds::Flag => Err("it is true or false".to_owned()),
            Holds::Number(least, most) => match value.as_i64() {
                Some(number) if (least..=most).contains(&number) || !bounds => Ok(value.clone()),
                _ => Err(format!("it is a whole number from {least} to {most}")),
            },
            Holds::Instant => match (value.as_i64(), value.as_str()) {
                (Some(us), _) if !bounds || INSTANTS.contains(&us) => Ok(value.clone()),
                (Some(_), _) => Err("it is an instant of the years 1970 to 9999".to_owned()),
                (_, Some(text)) => {
                    let instant = DateTime::parse_from_rfc3339(text).map(|at| at.timestamp_micros());
                    match instant {
                        Ok(us) if !bounds || INSTANTS.contains(&us) => Ok(json!(us)),
                        Ok(_) => Err("it is an instant of the years 1970 to 9999".to_owned()),
                        Err(_) => Err("it is an instant, RFC 3339".to_owned()),
                    }
                }
                _ => Err("it is an instant, RFC 3339".to_owned()),
            },
            Holds::Texts(most, each) => {
                let Some(texts) = value.as_array() else { return Err("it is a list of texts".to_owned()) };
                if texts.len() > most && bounds {
                    return Err(format!("it has at most {most} texts"));
                }
                match texts
                    .iter()
                    .all(|text| text.as_str().is_some_and(|t| (t.len() <= each || !bounds) && !t.contains('\0')))
                {
                    true => Ok(value.clone()),
                    false => Err(format!("each is a text of at most {each} bytes")),
                }
            }
        }
    }
}

/// What is wrong with a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Names it, for programs.
    pub code: RefusalCode,
    /// The field.
    pub field: Option<&'static str>,
    /// What to do about it.
    pub detail: String,
}

impl Wrong {
    /// A field holds what it must not.
    pub fn field(field: &'static str, detail: impl Into<String>) -> Self {
        Wrong { code: RefusalCode::Invalid, field: Some(field), detail: detail.into() }
    }

    /// The same, of another kind.
    #[must_use]
    pub fn of(mut self, code: RefusalCode) -> Self {
        self.code = code;
        self
    }
}

impl ResourceKind {
    /// As its entity is called.
    pub fn name(&self) -> &'static str {
        self.table.name()
    }

    /// A field that is set.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// What doing something to it takes; `None` where nobody can.
    pub fn permission(&self, verb: &str) -> Option<Permission> {
        let resource = self.name();
        let (verb, least) = match verb {
            "read" => ("read", self.read),
            "create" | "put" if self.made_by == MadeBy::People => ("create", self.write),
            "update" if self.made_by == MadeBy::People => ("update", self.write),
            "delete" => ("delete", self.write),
            other => {
                self.actions.iter().find(|action| action.name == other).map(|action| (action.name, action.least))?
            }
        };
        Some(Permission { resource, verb, least })
    }

    /// Everything that can be done to it.
    pub fn permissions(&self) -> impl Iterator<Item = Permission> + '_ {
        let verbs = ["read", "create", "update", "delete"].into_iter();
        verbs.chain(self.actions.iter().map(|action| action.name)).filter_map(|verb| self.permission(verb))
    }

    /// Fields as they are kept, and secrets: each read, what is not said by default; within their bounds, or without.
    ///
    /// # Errors
    /// What is wrong with the first that is wrong.
    pub fn read_all(&self, said: &Fields, bounds: bool) -> Result<(Fields, Fields), Wrong> {
        if let Some(unknown) = said.keys().find(|name| self.field(name).is_none()) {
            let known: Vec<_> = self.fields.iter().map(|field| field.name).collect();
            let detail =
                format!("{} have no field {unknown} that can be set; these can: {}", self.name(), known.join(", "));
            return Err(Wrong { code: RefusalCode::Invalid, field: None, detail });
        }
        let (mut shown, mut secret) = (Fields::new(), Fields::new());
        for field in self.fields {
            let value = said.get(field.name).unwrap_or(&Value::Null);
            let value = field.read_within(value, bounds).map_err(|detail| Wrong::field(field.name, detail))?;
            match field.secret {
                Some(_) if value.is_null() => {}
                Some(_) => drop(secret.insert(field.name.to_owned(), value)),
                None => drop(shown.insert(field.name.to_owned(), value)),
            }
        }
        Ok((shown, secret))
    }

    /// The row of a resource.
    pub fn row(&self, resource: &Resource) -> Option<StateRow> {
        let mut row = Map::new();
        let derived = (self.derived)(resource);
        for column in self.table.columns() {
            let value = match column.name {
                "tenant_id" => json!(resource.tenant),
                "partition" => json!(WHOLE),
                "owner" => json!(Some(&resource.owner).filter(|owner| !owner.is_empty())),
                "created_at" => json!(Time(resource.created_us)),
                "created_by" => json!(resource.created_by),
                "updated_at" => json!(Time(resource.updated_us)),
                "updated_by" | "actor" => json!(resource.updated_by),
                "epoch" => json!(resource.epoch),
                name if name == self.id => json!(resource.id),
                name => {
                    let derived = derived.iter().find(|(column, _)| *column == name).map(|(_, value)| value.clone());
                    let said = derived.or_else(|| resource.fields.0.get(name).cloned());
                    // What was stated before there was such a field says its default.
                    said.unwrap_or_else(|| self.field(name).map_or(Value::Null, |field| field.default.value()))
                }
            };
            row.insert(column.name.to_owned(), value);
        }
        StateRow::of_fields(self.table, row)
    }
}

/// An id: some text without blanks around it, without asterisks and control characters.
///
/// # Errors
/// What is wrong with it.
pub fn check_id(id: &str) -> Result<(), String> {
    match id {
        "" => Err("it has an id".to_owned()),
        id if id.len() > MAX_ID => Err(format!("an id has at most {MAX_ID} bytes")),
        id if id.trim() != id => Err("an id has no blanks around it".to_owned()),
        id if id.contains(|c: char| c.is_control() || c == '*') => {
            Err("an id has no asterisk and no control character".to_owned())
        }
        _ => Ok(()),
    }
}

//! Inventories in shapes of their own, CSV or JSON, as device updates: a mapping says which column is what.
//!
//! ```yaml
//! items: /result            # of JSON: where the list is; without it the document is the list, or an item a line
//! id: sys_id                # a column; of JSON also a pointer: /location/name
//! ip: [ip_address, mgmt_ip] # several: all of them, of addresses and MACs; elsewhere the first that says something
//! mac: mac_address
//! hostname: name
//! time: sys_updated_on
//! time_format: "%Y-%m-%d %H:%M:%S"   # UTC; without it RFC 3339 or a number of s, ms, µs, ns
//! partition: { value: site-b }       # the same for every item
//! deleted: { from: install_status, is: [retired, absent] }
//! attributes: { vendor_name: manufacturer, model: model_id, type: class, os: os }
//! metadata: { owner: assigned_to }
//! ```
//! An item without an identity of its own is passed on: the dataflow rejects it by name, where everybody looks for it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use radarflow_proto::payload::DeviceUpdate;
use radarflow_proto::record::SourceKind;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use thiserror::Error;

/// Which column is what.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    items: Option<String>,
    #[serde(default)]
    id: Columns,
    #[serde(default)]
    ip: Columns,
    #[serde(default)]
    mac: Columns,
    #[serde(default)]
    hostname: Columns,
    #[serde(default)]
    time: Columns,
    time_format: Option<String>,
    #[serde(default)]
    partition: Columns,
    deleted: Option<Deleted>,
    #[serde(default)]
    attributes: BTreeMap<String, Columns>,
    #[serde(default)]
    metadata: BTreeMap<String, Columns>,
}

/// Where a value is.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Columns {
    One(String),
    Many(Vec<String>),
    Fixed { value: String },
}

impl Default for Columns {
    fn default() -> Self {
        Columns::Many(Vec::new())
    }
}

/// What says that an item is gone.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Deleted {
    from: String,
    is: Vec<String>,
}

/// Why a mapping or a document cannot be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum MappingError {
    /// The mapping itself.
    #[error("the mapping, line {line}: {reason}")]
    Mapping {
        /// From 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// An attribute that devices do not have.
    #[error("the mapping sets the attribute `{0}`; there are {1}")]
    Attribute(String, String),
    /// CSV that is none.
    #[error("line {line} is no CSV: {reason}")]
    Csv {
        /// From 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// JSON that is none.
    #[error("line {line} is no JSON: {reason}")]
    Json {
        /// From 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// An item that is none.
    #[error("item {number} is no device update: {reason}")]
    Item {
        /// From 1.
        number: usize,
        /// What is wrong.
        reason: String,
    },
    /// More items, or columns, than a document may have.
    #[error("a document has at most {0}; send one item a line")]
    TooMany(&'static str),
    /// No list where one should be.
    #[error("there is no list at `{0}`")]
    NoList(String),
}

/// Attributes that a mapping can set, as device updates spell them.
const ATTRIBUTES: [&str; 5] = ["name", "type", "vendor_name", "model", "os"];

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON document.
    Json,
    /// A JSON document a line.
    Lines,
    /// Comma-separated values, the first line names the columns.
    Csv,
}

/// Whose inventory it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whose {
    /// Armis, NetBox or another integration.
    pub kind: SourceKind,
    /// The type of another integration: `servicenow`.
    pub integration: String,
}

impl Whose {
    /// By the name of an inventory: `armis`, `netbox`, or a type of integration.
    pub fn named(name: &str) -> Self {
        let kind = match name {
            "armis" => SourceKind::Armis,
            "netbox" => SourceKind::NetBox,
            _ => SourceKind::Integration,
        };
        Whose { kind, integration: name.to_owned() }
    }
}

fn text(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(n) => n.to_string(),
        Value::Bool(b) => b.to_string(),
        // References: what they show, else what they are.
        Value::Object(o) => return ["display_value", "display", "name", "value"].iter().find_map(|k| text(o.get(*k)?)),
        Value::Array(list) => list.iter().filter_map(text).collect::<Vec<_>>().join(","),
        Value::Null => return None,
    };
    (!text.is_empty()).then_some(text)
}

fn at(item: &Value, column: &str) -> Option<String> {
    let value = if column.starts_with('/') { item.pointer(column) } else { item.get(column) };
    value.and_then(text)
}

impl Columns {
    fn all(&self, item: &Value) -> Vec<String> {
        match self {
            Columns::One(column) => at(item, column).into_iter().collect(),
            Columns::Many(columns) => columns.iter().filter_map(|c| at(item, c)).collect(),
            Columns::Fixed { value } => vec![value.clone()],
        }
    }

    fn first(&self, item: &Value) -> Option<String> {
        self.all(item).into_iter().next()
    }

    fn names(&self) -> &[String] {
        match self {
            Columns::One(column) => std::slice::from_ref(column),
            Columns::Many(columns) => columns,
            Columns::Fixed { .. } => &[],
        }
    }
}

impl Mapping {
    /// Reads a mapping file.
    ///
    /// # Errors
    /// [`MappingError`] with the line that is wrong.
    pub fn read(yaml: &str) -> Result<Self, MappingError> {
        let mapping: Mapping =
            crate::yaml::read(yaml).map_err(|(line, reason)| MappingError::Mapping { line, reason })?;
        match mapping.attributes.keys().find(|a| !ATTRIBUTES.contains(&a.as_str())) {
            Some(unknown) => Err(MappingError::Attribute(unknown.clone(), ATTRIBUTES.join(", "))),
            None => Ok(mapping),
        }
    }

    /// One item as a device update.
    pub fn update(&self, item: &Value, whose: &Whose) -> DeviceUpdate {
        let mut metadata: BTreeMap<String, String> =
            self.metadata.iter().filter_map(|(key, from)| Some((key.clone(), from.first(item)?))).collect();
        for (attribute, from) in &self.attributes {
            metadata.extend(from.first(item).map(|value| (attribute.clone(), value)));
        }
        metadata.extend(self.id.first(item).map(|id| (id_key(whose).to_owned(), id)));
        if let Some(deleted) = &self.deleted
            && at(item, &deleted.from)
                .is_some_and(|said| deleted.is.iter().any(|gone| gone.eq_ignore_ascii_case(&said)))
        {
            metadata.insert("_deleted".to_owned(), "true".to_owned());
        }
        let mut update = DeviceUpdate {
            partition: self.partition.first(item).unwrap_or_default(),
            ip: self.ip.all(item).join(","),
            timestamp: self.time.first(item).map_or(Value::Null, |said| self.time(&said)),
            mac: Some(self.mac.all(item).join(",")).filter(|m| !m.is_empty()),
            hostname: self.hostname.first(item),
            metadata,
            ..DeviceUpdate::default()
        };
        belong(&mut update, whose);
        update
    }

    fn time(&self, said: &str) -> Value {
        let read = self.time_format.as_ref().and_then(|format| {
            let time = chrono::NaiveDateTime::parse_from_str(said, format);
            let date = || chrono::NaiveDate::parse_from_str(said, format).ok()?.and_hms_opt(0, 0, 0);
            time.ok().or_else(date)
        });
        read.map_or_else(|| Value::String(said.to_owned()), |at| Value::from(at.and_utc().timestamp_micros()))
    }

    /// The items of a document as device updates.
    ///
    /// # Errors
    /// It is no such document.
    pub fn document(&self, format: Format, body: &[u8], whose: &Whose) -> Result<Vec<DeviceUpdate>, MappingError> {
        Ok(rows(format, body, self.list())?.iter().map(|item| self.update(item, whose)).collect())
    }

    /// Every column that it reads, with what for.
    pub(crate) fn columns(&self) -> BTreeMap<&str, String> {
        let fields = [
            ("id", &self.id),
            ("ip", &self.ip),
            ("mac", &self.mac),
            ("hostname", &self.hostname),
            ("time", &self.time),
            ("partition", &self.partition),
        ];
        let fields = fields.map(|(name, from)| (name.to_owned(), from)).into_iter();
        let attributes = self.attributes.iter().map(|(name, from)| (format!("attributes.{name}"), from));
        let metadata = self.metadata.iter().map(|(name, from)| (format!("metadata.{name}"), from));
        let mut columns: BTreeMap<&str, String> = BTreeMap::new();
        for (name, from) in fields.chain(attributes).chain(metadata) {
            for column in from.names() {
                columns.entry(column).or_insert_with(|| name.clone());
            }
        }
        if let Some(deleted) = &self.deleted {
            columns.entry(&deleted.from).or_insert_with(|| "deleted".to_owned());
        }
        columns
    }

    /// The columns of an item's identity.
    pub fn id_columns(&self) -> &[String] {
        self.id.names()
    }

    /// Where in a JSON document the list is.
    pub fn list(&self) -> Option<&str> {
        self.items.as_deref()
    }
}

/// Which key of an update's metadata is the item's identity.
fn id_key(whose: &Whose) -> &'static str {
    match whose.kind {
        SourceKind::Armis => "armis_device_id",
        SourceKind::NetBox => "netbox_device_id",
        _ => "integration_id",
    }
}

/// An update is its inventory's, whatever it says.
pub fn belong(update: &mut DeviceUpdate, whose: &Whose) {
    update.source = whose.kind.name().to_owned();
    if whose.kind == SourceKind::Integration {
        update.source.clone_from(&whose.integration);
        update.metadata.insert("integration_type".to_owned(), whose.integration.clone());
    }
}

/// A line of a document whose items stand a line each. Blank ones are none.
///
/// # Errors
/// [`MappingError`] where it is no JSON.
pub fn line(number: usize, line: &[u8]) -> Result<Option<Value>, MappingError> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(line).map(Some).map_err(|e| MappingError::Json { line: number, reason: e.to_string() })
}

/// Items that a JSON document may have.
pub const MAX_ITEMS: usize = 1 << 18;
/// Columns that CSV may have.
pub const MAX_COLUMNS: usize = 1024;

/// One item of a document, as it stands there.
#[derive(Debug)]
pub enum Item<'a> {
    /// JSON, and where it stands, from 1.
    Json(usize, &'a str),
    /// The cells of a row, under their columns, and how many bytes these are.
    Row(Value, usize),
}

impl Item<'_> {
    /// Bytes of its text.
    pub fn bytes(&self) -> usize {
        match self {
            Item::Json(_, text) => text.len(),
            Item::Row(_, bytes) => *bytes,
        }
    }

    /// What it says.
    ///
    /// # Errors
    /// It is no JSON, or too deep.
    pub fn read(self) -> Result<Value, MappingError> {
        match self {
            Item::Json(number, text) => {
                serde_json::from_str(text).map_err(|e| MappingError::Item { number, reason: e.to_string() })
            }
            Item::Row(row, _) => Ok(row),
        }
    }
}

/// The items of a document.
///
/// # Errors
/// It is no such document.
pub fn rows(format: Format, body: &[u8], list: Option<&str>) -> Result<Vec<Value>, MappingError> {
    if format == Format::Lines {
        let lines = body.split(|b| *b == b'\n').enumerate();
        return lines.filter_map(|(n, text)| line(n + 1, text).transpose()).collect();
    }
    items(format, body, list)?.map(|item| item?.read()).collect()
}

/// The items of a document that is none of lines, one after the other: what they say is read by whoever takes them.
///
/// # Errors
/// It is no such document.
pub fn items<'a>(
    format: Format,
    body: &'a [u8],
    list: Option<&str>,
) -> Result<Box<dyn Iterator<Item = Result<Item<'a>, MappingError>> + Send + 'a>, MappingError> {
    if format != Format::Csv {
        let items = json_items(body, list.unwrap_or_default())?;
        return Ok(Box::new(items.into_iter().enumerate().map(|(n, item)| Ok(Item::Json(n + 1, item.get())))));
    }
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    let bad =
        |e: csv::Error| MappingError::Csv { line: e.position().map_or(1, csv::Position::line), reason: e.to_string() };
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).delimiter(delimiter(body)).from_reader(body);
    let columns = reader.headers().map_err(bad)?.clone();
    if columns.len() > MAX_COLUMNS {
        return Err(MappingError::TooMany("1024 columns"));
    }
    Ok(Box::new(reader.into_records().map(move |record| {
        let record = record.map_err(bad)?;
        let cells = columns.iter().zip(&record).map(|(c, v)| (c.to_owned(), Value::from(v)));
        // Its columns are said once more with every row.
        Ok(Item::Row(Value::Object(cells.collect()), record.as_slice().len() + columns.as_slice().len()))
    })))
}

/// The texts of a list, which is where a pointer (RFC 6901) leads.
fn json_items<'a>(body: &'a [u8], pointer: &str) -> Result<Vec<&'a RawValue>, MappingError> {
    let bad = |e: serde_json::Error| MappingError::Json { line: e.line(), reason: e.to_string() };
    let mut at: &RawValue = serde_json::from_slice(body).map_err(bad)?;
    let no_list = || MappingError::NoList(if pointer.is_empty() { "/".to_owned() } else { pointer.to_owned() });
    for name in pointer.split('/').skip(1) {
        let name = name.replace("~1", "/").replace("~0", "~");
        let found = Member(&name).deserialize(&mut serde_json::Deserializer::from_str(at.get()));
        at = found.ok().flatten().ok_or_else(no_list)?;
    }
    if !at.get().starts_with('[') {
        return Err(no_list());
    }
    let items = serde_json::from_str::<Few<'a>>(at.get());
    items.map(|Few(items)| items).map_err(|_| MappingError::TooMany("262144 items"))
}

/// The text of one member of an object.
struct Member<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = members.next_key::<Cow<'de, str>>()? {
            if name == self.0 {
                found = Some(members.next_value()?);
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// The texts of a list that has no more than it may.
struct Few<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Few<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Vec<&'de RawValue>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    if items.len() == MAX_ITEMS {
                        return Err(A::Error::custom("too many"));
                    }
                    items.push(item);
                }
                Ok(items)
            }
        }
        deserializer.deserialize_seq(List).map(Few)
    }
}

/// What separates columns: spreadsheets of many countries write semicolons.
fn delimiter(body: &[u8]) -> u8 {
    let first = body.split(|b| *b == b'\n').next().unwrap_or_default();
    let count = |d: u8| first.iter().filter(|b| **b == d).count();
    [b',', b';', b'\t'].into_iter().max_by_key(|d| (count(*d), *d == b',')).unwrap_or(b',')
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "items: /result\nid: sys_id\nip: [ip_address, /mgmt/ip]\nmac: mac\nhostname: [fqdn, name]\n\
                        time: updated\ntime_format: \"%Y-%m-%d %H:%M:%S\"\npartition: {value: site-b}\n\
                        deleted: {from: state, is: [retired]}\nattributes: {vendor_name: maker, model: /model/name}\n\
                        metadata: {owner: owner}\n";

    #[test]
    fn a_document_of_any_shape_is_read() {
        let mapping = Mapping::read(YAML).unwrap();
        let body = r#"{"result":[
            {"sys_id":"a1","ip_address":"10.0.0.1","mgmt":{"ip":"10.0.0.2"},"mac":"00:11:22:33:44:55","name":"h1",
             "updated":"2024-02-03 04:05:06","maker":{"display_value":"Acme","link":"x"},"model":{"name":"M"},"owner":7},
            {"sys_id":"a2","state":"Retired"}]}"#;
        let updates = mapping.document(Format::Json, body.as_bytes(), &Whose::named("servicenow")).unwrap();
        let a = &updates[0];
        assert_eq!(
            (a.source.as_str(), a.ip.as_str(), a.hostname.as_deref()),
            ("servicenow", "10.0.0.1,10.0.0.2", Some("h1"))
        );
        assert_eq!((a.partition.as_str(), a.timestamp.as_i64()), ("site-b", Some(1_706_933_106_000_000)));
        let metadata: Vec<_> = a.metadata.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            metadata,
            [
                ("integration_id", "a1"),
                ("integration_type", "servicenow"),
                ("model", "M"),
                ("owner", "7"),
                ("vendor_name", "Acme")
            ]
        );
        assert_eq!(updates[1].metadata.get("_deleted").map(String::as_str), Some("true"));
    }

    #[test]
    fn spreadsheets_are_read_whatever_separates() {
        let mapping = Mapping::read("id: Asset\nip: IP\nhostname: Name\n").unwrap();
        for csv in ["\u{feff}Asset,IP,Name\n7, 10.0.0.7 ,\"h,7\"\n", "Asset;IP;Name\r\n7;10.0.0.7;\"h,7\"\r\n"] {
            let updates = mapping.document(Format::Csv, csv.as_bytes(), &Whose::named("netbox")).unwrap();
            assert_eq!(updates.len(), 1, "{csv}");
            assert_eq!((updates[0].ip.as_str(), updates[0].hostname.as_deref()), ("10.0.0.7", Some("h,7")));
            assert_eq!(updates[0].metadata.get("netbox_device_id").map(String::as_str), Some("7"));
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_where() {
        let whose = Whose::named("x");
        let mapping = Mapping::read("id: a").unwrap();
        let said = |format, body: &str| mapping.document(format, body.as_bytes(), &whose).unwrap_err().to_string();
        assert!(
            said(Format::Csv, "a,b\n1,2\n3\n").starts_with("line 3 is no CSV"),
            "{}",
            said(Format::Csv, "a,b\n1,2\n3\n")
        );
        assert!(said(Format::Lines, "{\"a\":1}\n\n{oops\n").starts_with("line 3 is no JSON"));
        assert_eq!(said(Format::Json, "{\"a\":1}"), "there is no list at `/`");
        assert!(said(Format::Json, "[{}\n,{oops}]").starts_with("line 2 is no JSON"));
        let many = format!("[{}0]", "0,".repeat(MAX_ITEMS));
        assert!(said(Format::Json, &many).contains("262144 items"));
        let wide = ",".repeat(MAX_COLUMNS);
        assert!(said(Format::Csv, &wide).contains("1024 columns"));
        let below = Mapping::read("items: /a~1b/list\nid: a").unwrap();
        let body = r#"{"list":[],"a/b":{"list":[{"a":1},{"a":2}]}}"#;
        assert_eq!(below.document(Format::Json, body.as_bytes(), &whose).unwrap().len(), 2);
        for none in [r#"{"a/b":[]}"#, r#"{"a/b":{"list":{}}}"#, "[]", "7"] {
            let said = below.document(Format::Json, none.as_bytes(), &whose).unwrap_err().to_string();
            assert_eq!(said, "there is no list at `/a~1b/list`", "{none}");
        }
        let error = Mapping::read("id: a\nattributes: {colour: c}").unwrap_err().to_string();
        assert!(error.contains("`colour`; there are name, type"), "{error}");
        assert!(matches!(Mapping::read("id: a\nidd: b\n"), Err(MappingError::Mapping { line: 2, .. })));
    }
}

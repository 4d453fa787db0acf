//! The catalog: entities and fields, made from the declared tables. Parsing, planning, documentation and completion all
//! read this and nothing else.

use std::sync::LazyLock;

use arrow_schema::DataType;
use radarflow_proto::rows::{Nature, Table};

/// What a field holds, as the language sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// An IP address.
    Ip,
    /// A MAC address.
    Mac,
    /// A whole number.
    Number,
    /// True or false.
    Bool,
    /// An instant.
    Time,
    /// A list of texts.
    List,
    /// Names and values.
    Map,
    /// Bytes.
    Bytes,
}

impl Kind {
    /// As the catalog and errors spell it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Ip => "ip",
            Kind::Mac => "mac",
            Kind::Number => "number",
            Kind::Bool => "boolean",
            Kind::Time => "time",
            Kind::List => "list",
            Kind::Map => "map",
            Kind::Bytes => "bytes",
        }
    }
}

/// A field of an entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it means.
    pub doc: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether it is there only to be computed with: not shown unless asked for.
    pub hidden: bool,
}

/// Something that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entity {
    /// Its name.
    pub name: &'static str,
    /// The table behind it.
    pub table: Table,
    /// Its fields, in order.
    pub fields: Vec<Field>,
    /// For events: the field that `time:` speaks of.
    pub time: Option<&'static str>,
    /// For state that is seen again and again: the field that says when it was last. `time:` asks for what was seen then.
    pub seen: Option<&'static str>,
    /// For state of which is known when it was: the fields between which a row held. `time:` asks for what held then.
    pub lasts: Option<(&'static str, &'static str)>,
    /// Sorted by this, descending, where nothing else is said.
    pub sort: &'static str,
}

pub use crate::aliases::{
    ALIASES, ENTITY_ALIASES, KINDS, NESTED, NOT_AVAILABLE, NOT_BUILT, meant, not_collected, unit,
};

/// A field of devices that hangs on the clock: it is computed where it is asked for.
pub const STATUS_COLOR: &str = "status_color";

/// Every entity.
pub static ENTITIES: LazyLock<Vec<Entity>> = LazyLock::new(|| Table::ALL.iter().map(|t| entity(*t)).collect());

fn entity(table: Table) -> Entity {
    let stored = |c: radarflow_proto::rows::Column| Field {
        name: c.name,
        doc: c.doc,
        kind: kind(c.name, &c.data_type),
        hidden: c.name.ends_with("_bin"),
    };
    let fields: Vec<Field> = table.columns().into_iter().map(stored).collect();
    let computed = match table {
        Table::Device => Some(Field {
            name: STATUS_COLOR,
            doc: "`green`: available; `yellow`: not, but seen within the hour; `red`.",
            kind: Kind::Text,
            hidden: true,
        }),
        _ => None,
    };
    let fields = fields.into_iter().chain(computed).collect();
    let time = match table {
        _ if table.nature() == Nature::State => None,
        Table::HealthEvent => Some("recorded_at"),
        _ => Some("time"),
    };
    let seen = match table {
        Table::Device => Some("last_seen_time"),
        Table::Agent | Table::Source | Table::TopologyLink | Table::ServiceState | Table::Interface => {
            Some("last_seen")
        }
        Table::Alert => Some("triggered_at"),
        Table::TraceSummary => Some("start_time"),
        _ => None,
    };
    let sort = time.unwrap_or(match table {
        Table::Device => "last_seen_time",
        Table::Alert => "triggered_at",
        Table::Agent | Table::Source | Table::TopologyLink | Table::ServiceState | Table::Interface => "last_seen",
        Table::IpOwnership => "valid_from",
        Table::TraceSummary => "start_time",
        _ => "epoch",
    });
    let lasts = (table == Table::IpOwnership).then_some(("valid_from", "valid_to"));
    Entity { name: table.name(), table, fields, time, seen, lasts, sort }
}

fn kind(name: &str, data_type: &DataType) -> Kind {
    match data_type {
        DataType::Utf8
            if matches!(
                name,
                "ip" | "sampler_address"
                    | "next_hop"
                    | "bgp_next_hop"
                    | "source_ip"
                    | "peer_ip"
                    | "local_ip"
                    | "neighbor_ip"
                    | "host_ip"
                    | "target_device_ip"
                    | "target_ip"
                    | "hop_ip"
                    | "device_ip"
            ) || name.ends_with("_endpoint_ip")
                || name.ends_with("_nat_ip") =>
        {
            Kind::Ip
        }
        DataType::Utf8 if name == "mac" || name.ends_with("_mac") => Kind::Mac,
        DataType::Int64 | DataType::Float64 | DataType::Decimal128(..) => Kind::Number,
        DataType::Boolean => Kind::Bool,
        DataType::Timestamp(..) => Kind::Time,
        DataType::List(_) => Kind::List,
        DataType::Map(..) => Kind::Map,
        DataType::Binary => Kind::Bytes,
        _ => Kind::Text,
    }
}

/// Whether some entity has a map of that name.
pub fn is_map(name: &str) -> bool {
    ENTITIES.iter().any(|e| e.field(name).is_some_and(|f| f.kind == Kind::Map))
}

/// The entity of that name or of another name of it, in any case.
pub fn find(name: &str) -> Option<&'static Entity> {
    let of = |name: &str| ENTITIES.iter().find(|e| e.name.eq_ignore_ascii_case(name));
    of(name).or_else(|| match meant(name) {
        [one] => of(one),
        _ => None,
    })
}

impl Entity {
    /// The field of that name or alias, in any case.
    pub fn field(&self, name: &str) -> Option<&Field> {
        let find = |name: &str| self.fields.iter().find(|f| f.name.eq_ignore_ascii_case(name));
        find(name).or_else(|| {
            let alias = |(entity, alias, _): &&(&str, &str, &str)| {
                (entity.is_empty() || *entity == self.name) && alias.eq_ignore_ascii_case(name)
            };
            ALIASES.iter().filter(alias).find_map(|(_, _, field)| find(field))
        })
    }

    /// The field that a path leads to, and how many parts of the path name it; what follows is a key of a map.
    pub fn locate(&self, path: &[String]) -> Option<(&Field, usize)> {
        let direct = self.field(path.first()?).map(|field| (field, 1));
        if path.len() == 1 || direct.is_some_and(|(field, _)| field.kind == Kind::Map) {
            return direct;
        }
        // `src_endpoint.ip` is src_endpoint_ip.
        for parts in (2..=path.len()).rev() {
            let named = self.field(&path[..parts].join(".")).or_else(|| self.field(&path[..parts].join("_")));
            if let Some(field) = named.filter(|field| parts == path.len() || field.kind == Kind::Map) {
                return Some((field, parts));
            }
        }
        let outer = path[0].to_ascii_lowercase();
        if NESTED.contains(&outer.as_str()) || (self.table == Table::Device && outer == "device") {
            return self.locate(&path[1..]).map(|(field, parts)| (field, parts + 1));
        }
        direct
    }
}

/// The candidate most like `name`, if any is like it at all.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    candidates
        .map(|c| (strsim::jaro_winkler(&name, c), c))
        .filter(|(score, _)| *score > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, c)| c)
}

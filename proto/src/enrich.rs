//! Rules that tell what a device is: the shape of files and of the fact. What they mean is `reconcile::enrich`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name; a rule of a file replaces the built-in one of that name.
    pub rule_id: String,
    /// Of rules that set one field, the greatest wins.
    #[serde(default)]
    pub priority: i32,
    /// Whether it is asked at all.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Fields that all must match.
    pub when: BTreeMap<String, Patterns>,
    /// What the device is then, by field.
    pub set: BTreeMap<String, String>,
}

fn yes() -> bool {
    true
}

impl Rule {
    /// A rule that says nothing yet.
    pub fn named(rule_id: &str) -> Self {
        let (when, set) = (BTreeMap::new(), BTreeMap::new());
        Rule { rule_id: rule_id.to_owned(), priority: 0, enabled: true, when, set }
    }
}

/// Patterns of which any may match; in files a single one may stand for a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "OneOrMany")]
pub struct Patterns(pub Vec<String>);

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl From<OneOrMany> for Patterns {
    fn from(said: OneOrMany) -> Self {
        match said {
            OneOrMany::One(one) => Patterns(vec![one]),
            OneOrMany::Many(many) => Patterns(many),
        }
    }
}

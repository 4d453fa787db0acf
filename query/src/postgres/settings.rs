//! What a session may set, and what it is told when it asks. Most of it has one value here, which setting it may repeat.

use std::collections::BTreeMap;

use crate::postgres::refusal::{BAD_VALUE, NO_SETTING, READ_ONLY, Refusal, TOO_MUCH};

/// A setting that clients know.
pub(crate) struct Known {
    pub(crate) name: &'static str,
    pub(crate) value: &'static str,
    /// It has this value, whatever is set.
    pub(crate) fixed: bool,
}

const fn fixed(name: &'static str, value: &'static str) -> Known {
    Known { name, value, fixed: true }
}

const fn free(name: &'static str, value: &'static str) -> Known {
    Known { name, value, fixed: false }
}

/// Every setting that clients know.
pub(crate) const KNOWN: &[Known] = &[
    free("application_name", ""),
    fixed("bytea_output", "hex"),
    fixed("client_encoding", "UTF8"),
    free("client_min_messages", "notice"),
    fixed("DateStyle", "ISO, MDY"),
    fixed("default_table_access_method", "heap"),
    fixed("default_transaction_isolation", "read committed"),
    fixed("default_transaction_read_only", "on"),
    free("extra_float_digits", "1"),
    free("idle_in_transaction_session_timeout", "0"),
    fixed("in_hot_standby", "off"),
    fixed("integer_datetimes", "on"),
    fixed("IntervalStyle", "postgres"),
    fixed("is_superuser", "off"),
    fixed("lc_collate", "C"),
    fixed("lc_ctype", "C"),
    free("lc_messages", "C"),
    free("lc_monetary", "C"),
    free("lc_numeric", "C"),
    free("lc_time", "C"),
    free("lock_timeout", "0"),
    fixed("max_identifier_length", "63"),
    fixed("max_index_keys", "32"),
    free("search_path", "public"),
    fixed("server_encoding", "UTF8"),
    fixed("server_version", super::VERSION),
    fixed("server_version_num", super::VERSION_NUMBER),
    fixed("session_authorization", ""),
    fixed("standard_conforming_strings", "on"),
    free("statement_timeout", "0"),
    fixed("TimeZone", "UTC"),
    fixed("transaction_isolation", "read committed"),
    fixed("transaction_read_only", "on"),
];

/// What a client is told of without asking, at the start and when it changes.
pub(crate) const TOLD: &[&str] = &[
    "application_name",
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "in_hot_standby",
    "integer_datetimes",
    "IntervalStyle",
    "is_superuser",
    "server_encoding",
    "server_version",
    "session_authorization",
    "standard_conforming_strings",
    "TimeZone",
];

/// Settings of one session.
const MAX_SET: usize = 64;
/// Longest name or value, bytes.
const MAX_TEXT: usize = 1024;

/// The settings of a session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings(BTreeMap<String, String>);

/// What came of setting something: a notice where it stays as it is.
pub(crate) type Set = Result<Option<String>, Refusal>;

/// The setting that clients know by that name.
pub(crate) fn known(name: &str) -> Option<&'static Known> {
    let name = if name.eq_ignore_ascii_case("time zone") { "TimeZone" } else { name };
    KNOWN.iter().find(|known| known.name.eq_ignore_ascii_case(name))
}

fn plain(text: &str) -> String {
    let mut plain: String = text.to_lowercase().chars().filter(|c| !matches!(c, ' ' | '-' | '_' | '"')).collect();
    plain = match plain.as_str() {
        "true" | "yes" | "1" => "on".to_owned(),
        "false" | "no" | "0" => "off".to_owned(),
        "unicode" => "utf8".to_owned(),
        "iso" | "iso,ymd" | "iso,dmy" => "iso,mdy".to_owned(),
        "etc/utc" | "gmt" | "z" | "zulu" | "etc/gmt" | "universal" => "utc".to_owned(),
        _ => plain,
    };
    plain
}

impl Settings {
    /// Sets something, or says why it stays as it is.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Set {
        if name.len() > MAX_TEXT || value.len() > MAX_TEXT {
            return Err(Refusal::new(TOO_MUCH, format!("a setting has {MAX_TEXT} bytes at most")));
        }
        match known(name) {
            Some(known) if known.fixed => self.repeated(known, value),
            Some(known) => {
                self.0.insert(known.name.to_owned(), value.to_owned());
                Ok(None)
            }
            // Settings of one's own have a dot in their name.
            None if name.contains('.') => {
                if self.0.len() >= MAX_SET && !self.0.contains_key(name) {
                    return Err(Refusal::new(TOO_MUCH, format!("a session has {MAX_SET} settings at most")));
                }
                self.0.insert(name.to_lowercase(), value.to_owned());
                Ok(None)
            }
            None => Ok(Some(format!("the setting \"{name}\" has no effect here"))),
        }
    }

    fn repeated(&self, known: &Known, value: &str) -> Set {
        let same = plain(known.value) == plain(value) || plain(value) == "default";
        match known.name {
            _ if same => Ok(None),
            "client_encoding" => {
                Err(Refusal::new(BAD_VALUE, format!("the encoding {value:?} is not supported: use UTF8")))
            }
            "default_transaction_read_only" | "transaction_read_only" => {
                Err(Refusal::new(READ_ONLY, "only reading is possible here"))
            }
            "server_version" | "server_version_num" | "server_encoding" | "is_superuser" | "lc_collate"
            | "lc_ctype" => Err(Refusal::new("55P02", format!("parameter \"{}\" cannot be changed", known.name))),
            "TimeZone" => Ok(Some("times are told in UTC, and days begin in UTC, whatever TimeZone is set".to_owned())),
            name => Ok(Some(format!("{name} is always \"{}\" here", known.value))),
        }
    }

    /// As it was at the start.
    pub(crate) fn reset(&mut self, name: Option<&str>) {
        match name {
            None => self.0.clear(),
            Some(name) => {
                let name = known(name).map_or_else(|| name.to_lowercase(), |known| known.name.to_owned());
                self.0.remove(&name);
            }
        }
    }

    /// The value of a setting.
    pub(crate) fn get(&self, name: &str) -> Result<&str, Refusal> {
        let known = known(name);
        let name = known.map_or(name, |known| known.name);
        let set = self.0.get(name).or_else(|| self.0.get(&name.to_lowercase())).map(String::as_str);
        set.or_else(|| known.map(|known| known.value))
            .ok_or_else(|| Refusal::new(NO_SETTING, format!("unrecognized configuration parameter \"{name}\"")))
    }

    /// Every setting with its value.
    pub(crate) fn all(&self) -> Vec<(String, String)> {
        let known = KNOWN.iter().map(|known| (known.name, self.0.get(known.name).map_or(known.value, String::as_str)));
        let own = self.0.iter().filter(|(name, _)| self::known(name).is_none());
        known
            .chain(own.map(|(name, value)| (name.as_str(), value.as_str())))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fixed_may_be_repeated_and_is_not_changed() {
        let mut settings = Settings::default();
        for (name, value) in [("client_encoding", "utf-8"), ("datestyle", "ISO"), ("timezone", "Etc/UTC")] {
            assert_eq!(settings.set(name, value), Ok(None), "{name}");
        }
        assert!(settings.set("TIME ZONE", "Europe/Berlin").unwrap().unwrap().contains("UTC"));
        assert_eq!(settings.set("client_encoding", "LATIN1").unwrap_err().code, BAD_VALUE);
        assert_eq!(settings.set("transaction_read_only", "off").unwrap_err().code, READ_ONLY);
        settings.set("application_name", "psql").unwrap();
        assert_eq!((settings.get("Application_Name"), settings.get("TimeZone")), (Ok("psql"), Ok("UTC")));
        settings.reset(None);
        assert_eq!(settings.get("application_name"), Ok(""));
        assert_eq!(settings.get("nothing").unwrap_err().code, NO_SETTING);
    }

    #[test]
    fn settings_of_ones_own_are_bounded() {
        let mut settings = Settings::default();
        assert!((0..MAX_SET).all(|n| settings.set(&format!("my.n{n}"), "1").is_ok()));
        assert_eq!(settings.set("my.more", "1").unwrap_err().code, TOO_MUCH);
        assert_eq!(settings.set("my.n1", &"x".repeat(MAX_TEXT + 1)).unwrap_err().code, TOO_MUCH);
        assert!(settings.all().iter().any(|(name, value)| name == "my.n1" && value == "1"));
    }
}

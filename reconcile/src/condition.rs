//! Conditions over a device's row, as the dataflow asks them: the part of the query language that one row answers by itself.
//!
//! ```text
//! or    = and { "OR" and }          and  = unary { ["AND"] unary }        unary = ["NOT" | "!"] ( "(" or ")" | term )
//! term  = field ":" ["!"] value     value = "null" | "*" | "(" value {"," value} ")" | ["~"] literal
//! ```
//! It means what the query language means by it: a comparison with a missing value is false, and `NOT` above it is classical;
//! addresses compare by value, and with networks; `*`, `%` and `?` are wildcards, regardless of case; of a list any element
//! counts. What needs more than the row (subqueries, groups, other entities), what hangs on the clock, and what probes
//! themselves decide is refused by name: a device that left its profile when it fell silent would never be seen to come back.

use std::net::IpAddr;

use radarflow_proto::rows::Device;

/// Terms of a condition at most.
const MAX_TERMS: usize = 1000;
/// Brackets within brackets at most.
const MAX_DEPTH: usize = 32;

/// A condition that a device's row answers.
#[derive(Clone, Debug)]
pub struct Condition(Expr);

#[derive(Clone, Debug)]
enum Expr {
    All(Vec<Expr>),
    Any(Vec<Expr>),
    Not(Box<Expr>),
    Is(Field, Test),
}

#[derive(Clone, Debug)]
enum Field {
    Text(fn(&Device) -> Option<&str>),
    Texts(fn(&Device) -> &[String]),
    Ip(fn(&Device) -> Option<&str>),
    Ips(fn(&Device) -> &[String]),
    Metadata(String),
}

#[derive(Clone, Debug)]
enum Test {
    Missing,
    Present,
    Any(Vec<Test>),
    Equals(String),
    Folded(String),
    Wild(String),
    Network(IpAddr, u8),
    Address(IpAddr),
}

/// The fields that conditions may speak of.
const FIELDS: &[(&str, Field)] = &[
    ("uid", Field::Text(|d| Some(&d.uid))),
    ("device_id", Field::Text(|d| Some(&d.uid))),
    ("partition", Field::Text(|d| Some(&d.partition))),
    ("boundary", Field::Text(|d| Some(&d.partition))),
    ("display_name", Field::Text(|d| Some(&d.display_name))),
    ("hostname", Field::Text(|d| d.hostname.as_deref())),
    ("name", Field::Text(|d| d.name.as_deref())),
    ("ip", Field::Ip(|d| d.ip.as_deref())),
    ("ip_addresses", Field::Ips(|d| &d.ip_addresses)),
    ("mac", Field::Text(|d| d.mac.as_deref())),
    ("mac_addresses", Field::Texts(|d| &d.mac_addresses)),
    ("type", Field::Text(|d| d.r#type.as_deref())),
    ("vendor_name", Field::Text(|d| d.vendor_name.as_deref())),
    ("model", Field::Text(|d| d.model.as_deref())),
    ("os", Field::Text(|d| d.os.as_deref())),
    ("agent_id", Field::Text(|d| d.agent_id.as_deref())),
    ("gateway_id", Field::Text(|d| d.gateway_id.as_deref())),
    ("discovery_sources", Field::Texts(|d| &d.discovery_sources)),
    ("lifecycle", Field::Text(|d| Some(&d.lifecycle))),
];

impl Condition {
    /// Reads a condition; an empty one holds of every device.
    ///
    /// # Errors
    /// What is wrong with it, or what of the language it uses that one row cannot answer.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut reader = Reader { rest: text, terms: 0, depth: 0 };
        let expr = reader.any()?;
        match reader.blanks().chars().next() {
            None => Ok(Condition(expr)),
            Some(_) => Err(format!("`{}` does not belong there", reader.rest)),
        }
    }

    /// Whether it holds of a device.
    pub fn holds(&self, device: &Device) -> bool {
        self.0.holds(device)
    }
}

impl Expr {
    fn holds(&self, device: &Device) -> bool {
        match self {
            Expr::All(all) => all.iter().all(|e| e.holds(device)),
            Expr::Any(any) => any.iter().any(|e| e.holds(device)),
            Expr::Not(inner) => !inner.holds(device),
            Expr::Is(field, test) => match field {
                Field::Text(of) | Field::Ip(of) => test.of(of(device)),
                Field::Texts(of) | Field::Ips(of) => test.of_list(of(device)),
                Field::Metadata(key) => test.of(device.metadata.0.get(key).map(String::as_str)),
            },
        }
    }
}

impl Test {
    fn of(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (Test::Any(any), value) => any.iter().any(|test| test.of(value)),
            (Test::Missing, value) => value.is_none(),
            (_, None) => false,
            (Test::Present, Some(_)) => true,
            (Test::Equals(text), Some(value)) => value == text,
            (Test::Folded(text), Some(value)) => value.to_lowercase() == *text,
            (Test::Wild(pattern), Some(value)) => wild(pattern, &value.to_lowercase()),
            (Test::Address(ip), Some(value)) => address(value) == Some(*ip),
            (Test::Network(network, bits), Some(value)) => address(value).is_some_and(|ip| within(ip, *network, *bits)),
        }
    }

    fn of_list(&self, values: &[String]) -> bool {
        match self {
            Test::Missing => values.is_empty(),
            Test::Any(any) => any.iter().any(|test| test.of_list(values)),
            test => values.iter().any(|value| test.of(Some(value))),
        }
    }
}

/// An address, canonical: of one within the other version's the inner.
pub fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// An address as a number that begins at the left end.
fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)) << 96,
        IpAddr::V6(ip) => ip.into(),
    }
}

/// Whether an address is in a network of the same version.
pub fn within(ip: IpAddr, network: IpAddr, bits: u8) -> bool {
    let same = ip.is_ipv4() == network.is_ipv4();
    let apart = number(ip) ^ number(network);
    same && (bits == 0 || apart.leading_zeros() >= u32::from(bits))
}

/// A network, `10.0.0.0/8`.
pub fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, bits) = text.split_once('/')?;
    let (ip, bits) = (ip.parse::<IpAddr>().ok()?, bits.parse::<u8>().ok()?);
    (bits <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, bits))
}

/// Whether a text in lower case is like a pattern: in one pass, going back to the last run that could be longer.
fn wild(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t, mut run) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some('*' | '%') => {
                run = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match run {
                Some((at, from)) => {
                    run = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| matches!(c, '*' | '%'))
}

struct Reader<'a> {
    rest: &'a str,
    terms: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn blanks(&mut self) -> &'a str {
        self.rest = self.rest.trim_start();
        self.rest
    }

    fn eat(&mut self, what: &str) -> bool {
        match self.rest.strip_prefix(what) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// A word of the language's own: it ends at a blank or a bracket.
    fn word(&mut self, word: &str) -> bool {
        let Some((head, rest)) = self.blanks().split_at_checked(word.len()) else { return false };
        let ends = rest.chars().next().is_none_or(|c| c.is_whitespace() || matches!(c, '(' | ')'));
        let is = head.eq_ignore_ascii_case(word) && ends;
        if is {
            self.rest = rest;
        }
        is
    }

    fn any(&mut self) -> Result<Expr, String> {
        let mut any = vec![self.all()?];
        while self.word("OR") {
            any.push(self.all()?);
        }
        Ok(if any.len() == 1 { any.remove(0) } else { Expr::Any(any) })
    }

    fn all(&mut self) -> Result<Expr, String> {
        let mut all = Vec::new();
        loop {
            let joined = self.word("AND");
            let rest = self.blanks();
            let ends = rest.is_empty() || rest.starts_with(')') || Reader { rest, terms: 0, depth: 0 }.word("OR");
            match (ends, joined) {
                (true, true) => return Err("something must follow AND".to_owned()),
                (true, false) => return Ok(Expr::All(all)),
                (false, _) => all.push(self.unary()?),
            }
        }
    }

    fn unary(&mut self) -> Result<Expr, String> {
        if self.word("NOT") || (self.blanks().starts_with('!') && self.eat("!")) {
            return self.deeper(|reader| Ok(Expr::Not(Box::new(reader.unary()?))));
        }
        if self.eat("(") {
            return self.deeper(|reader| {
                let expr = reader.any()?;
                reader.blanks();
                if reader.eat(")") { Ok(expr) } else { Err("a bracket is not closed".to_owned()) }
            });
        }
        self.term()
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} brackets or negations within each other"));
        }
        let read = read(self)?;
        self.depth -= 1;
        Ok(read)
    }

    fn term(&mut self) -> Result<Expr, String> {
        self.terms += 1;
        if self.terms > MAX_TERMS {
            return Err(format!("more than {MAX_TERMS} terms"));
        }
        let end = self.rest.find(|c: char| c == ':' || c.is_whitespace() || matches!(c, '(' | ')' | '"' | '\''));
        let Some((key, rest)) = end.and_then(|end| Some((&self.rest[..end], self.rest[end..].strip_prefix(':')?)))
        else {
            let text: String = self.rest.chars().take(40).collect();
            return Err(format!("text that is sought in all fields is not supported here: `{text}`; name a field"));
        };
        self.rest = rest;
        let field = field(key)?;
        let negated = self.eat("!");
        let test = self.value(&field, key)?;
        let is = Expr::Is(field, test);
        Ok(if negated { Expr::Not(Box::new(is)) } else { is })
    }

    fn value(&mut self, field: &Field, key: &str) -> Result<Test, String> {
        if self.eat("(") {
            return self.deeper(|reader| {
                let mut any = Vec::new();
                loop {
                    reader.blanks();
                    any.push(reader.value(field, key)?);
                    reader.blanks();
                    match reader.eat(",") {
                        true => {}
                        false if reader.eat(")") => return Ok(Test::Any(any)),
                        false => return Err(format!("the list of `{key}` is not closed, or has no comma")),
                    }
                }
            });
        }
        let refuse = |what: &str| Err(format!("{what} not supported here, as in `{key}`"));
        if let Some(c @ ('[' | '@' | '>' | '<' | '=' | '/')) = self.rest.chars().next() {
            return refuse(match c {
                '[' => "lists in square brackets are",
                '@' => "comparisons of two fields are",
                '/' => "regular expressions are",
                _ => "comparisons by order are",
            });
        }
        let folded = self.eat("~");
        if let Some(quote @ ('"' | '\'')) = self.rest.chars().next() {
            let inside = &self.rest[1..];
            let Some((text, rest)) = inside.split_once(quote) else { return Err(format!("{quote} is not closed")) };
            if text.contains('\\') {
                return refuse("backslashes are");
            }
            self.rest = rest;
            return match (quote, text.contains('%')) {
                ('"', true) => refuse("wildcards within quotes are"),
                _ => self.plain(field, key, text, folded, false),
            };
        }
        let end =
            self.rest.find(|c: char| c.is_whitespace() || matches!(c, '(' | ')' | ',')).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        if text.is_empty() {
            return Err(format!("`{key}` is compared with nothing"));
        }
        if text.contains('\\') || text.contains("..") {
            return refuse("ranges and backslashes are");
        }
        self.rest = rest;
        match (text, folded) {
            ("null", false) => Ok(Test::Missing),
            ("*", false) => Ok(Test::Present),
            _ => self.plain(field, key, text, folded, true),
        }
    }

    #[allow(clippy::unused_self)]
    fn plain(&self, field: &Field, key: &str, text: &str, folded: bool, wildcards: bool) -> Result<Test, String> {
        let is_wild = wildcards && text.contains(['*', '%', '?']);
        match field {
            Field::Ip(_) | Field::Ips(_) if !is_wild => match (address(text), network(text)) {
                (Some(ip), _) => Ok(Test::Address(ip)),
                (_, Some((ip, bits))) => Ok(Test::Network(ip, bits)),
                _ => Err(format!("`{key}` is compared with addresses and networks, and `{text}` is none")),
            },
            _ if matches!(key.to_ascii_lowercase().as_str(), "mac" | "mac_addresses") && !is_wild => {
                let hex: String = text.chars().filter(|c| !matches!(c, ':' | '-' | '.')).collect();
                Ok(Test::Equals(hex.to_ascii_uppercase()))
            }
            _ if is_wild => Ok(Test::Wild(text.to_lowercase())),
            _ if folded => Ok(Test::Folded(text.to_lowercase())),
            _ => Ok(Test::Equals(text.to_owned())),
        }
    }
}

fn field(key: &str) -> Result<Field, String> {
    if let Some((map, path)) = key.split_once('.')
        && map.eq_ignore_ascii_case("metadata")
        && !path.is_empty()
    {
        return Ok(Field::Metadata(path.to_owned()));
    }
    let known = FIELDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
    known.map(|(_, field)| field.clone()).ok_or_else(|| {
        let names: Vec<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
        match key.to_ascii_lowercase().as_str() {
            "is_available" | "availability" | "status_color" | "availability_since" | "availability_reason" => {
                format!("`{key}` is what probes find: what is probed cannot hang on it")
            }
            "group" => "`group` is not supported here: name the group in `device_group`".to_owned(),
            _ => format!("`{key}` is not supported here; these are: {}, metadata.KEY", names.join(", ")),
        }
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use radarflow_proto::cell::Tags;

    use super::*;

    pub(crate) fn device() -> Device {
        let fields = serde_json::json!({
            "tenant_id": "t", "partition": "dc1", "uid": "sr:1", "display_name": "Core-1", "hostname": "core-1",
            "name": null, "ip": "10.1.2.3", "ip_addresses": ["10.1.2.3", "2001:db8::1"], "mac": "001B44000001",
            "mac_addresses": ["001B44000001"], "type": "router", "vendor_name": "Cisco", "model": null, "os": null,
            "agent_id": null, "gateway_id": null, "discovery_sources": ["armis", "netbox"], "is_available": null,
            "availability": "unknown", "availability_since": null, "availability_reason": null, "first_seen_time": 0,
            "last_seen_time": 0, "lifecycle": "identified", "deleted_at": null, "deleted_by": null,
            "deleted_reason": null, "metadata": {}, "enriched_by": {}, "epoch": 0,
        });
        let mut device: Device = serde_json::from_value(fields).unwrap();
        device.metadata = Tags([("Role".to_owned(), "edge".to_owned())].into());
        device
    }

    #[test]
    fn conditions_mean_what_the_query_language_means() {
        let device = device();
        for (condition, holds) in [
            ("", true),
            ("type:router", true),
            ("type:Router", false),
            ("type:~ROUTER", true),
            ("type:r*", true),
            ("hostname:CORE-?", true),
            ("hostname:%ore%", true),
            ("hostname:core", false),
            ("type:(switch, router)", true),
            ("type:!router", false),
            ("!type:router OR vendor_name:Cisco", true),
            ("NOT (type:router vendor_name:Cisco)", false),
            ("type:switch OR type:router AND vendor_name:Juniper", false),
            ("(type:switch OR type:router) vendor_name:Cisco", true),
            ("ip:10.0.0.0/8", true),
            ("ip:10.1.2.4/31", false),
            ("ip_addresses:2001:db8:0::1", true),
            ("ip_addresses:2001:db8::/32", true),
            ("ip:0.0.0.0/0", true),
            ("ip:::/0", false),
            ("mac:00:1b:44:00:00:01", true),
            ("model:null", true),
            ("model:*", false),
            ("!model:x", true),
            ("model:x", false),
            ("discovery_sources:armis", true),
            ("discovery_sources:(x,net*)", true),
            ("metadata.Role:edge", true),
            ("metadata.role:edge", false),
            ("hostname:\"core-1\" display_name:'Core-1'", true),
            ("UID:sr:1", true),
        ] {
            let read = Condition::read(condition).unwrap_or_else(|error| panic!("{condition}: {error}"));
            assert_eq!(read.holds(&device), holds, "{condition}");
        }
    }

    #[test]
    fn what_one_row_cannot_answer_is_refused_by_name() {
        for (condition, says) in [
            ("is_available:false", "what probes find"),
            ("group:core", "device_group"),
            ("last_seen_time:>now-1h", "`last_seen_time` is not supported"),
            ("hostname:/x/", "regular expressions"),
            ("uid:(in:devices type:router)", "not closed, or has no comma"),
            ("hostname:>a", "comparisons by order"),
            ("core", "text that is sought"),
            ("\"core\"", "text that is sought"),
            ("(type:router", "not closed"),
            ("type:router)", "does not belong"),
            ("type:", "compared with nothing"),
            ("ip:nonsense", "addresses and networks"),
            ("ip:10.0.0.1-10.0.0.9", "addresses and networks"),
            ("type:router AND", "follow AND"),
            ("limit:3", "`limit` is not supported"),
        ] {
            let error = Condition::read(condition).expect_err(condition);
            assert!(error.contains(says), "{condition}: {error}");
        }
        assert!(Condition::read(&"(".repeat(1000)).is_err());
        assert!(Condition::read(&"!".repeat(100_000)).is_err());
    }
}

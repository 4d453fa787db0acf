//! RFC 5424: header and structured data. What real senders make of structured data is read as far as it goes.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::time::{self, Receipt};
use super::{ENDS, MAX_SD_NAME, Message, nil};

/// What parameters say, by `element.parameter`. One that comes again is `element.parameter.2`.
#[derive(Default)]
struct Data {
    attributes: BTreeMap<String, String>,
    /// How often those came that came again.
    times: BTreeMap<String, usize>,
}

impl Data {
    fn add(&mut self, id: &str, name: &str, value: String) {
        let key = match (id, name) {
            ("", name) => name.to_owned(),
            (id, "") => id.to_owned(),
            (id, name) => [id, ".", name].concat(),
        };
        match self.attributes.entry(key) {
            Entry::Vacant(first) => _ = first.insert(value),
            Entry::Occupied(first) => {
                let times = self.times.entry(first.key().clone()).or_insert(1);
                *times += 1;
                let again = format!("{}.{times}", first.key());
                self.attributes.insert(again, value);
            }
        }
    }
}

/// RFC 5424 section 6, after the version. Tells how it was parsed.
pub(super) fn rfc5424(rest: &str, receipt: Receipt, m: &mut Message) -> Option<&'static str> {
    let mut fields = rest.splitn(6, ' ');
    let timestamp = fields.next()?;
    if timestamp != "-" {
        // Without an offset, as some routers send it, it is the sender's own time.
        let stamp = time::stamp(timestamp, receipt).filter(|stamp| stamp.rest.is_empty())?;
        m.device_us = stamp.us;
    }
    m.hostname = nil(fields.next()?);
    m.app = nil(fields.next()?);
    m.process = nil(fields.next()?);
    m.message_id = nil(fields.next()?);
    let tail = fields.next()?;
    let (data, after, status) = match tail.strip_prefix('-').filter(|after| after.is_empty() || after.starts_with(' '))
    {
        Some(after) => (Data::default(), after, "rfc5424"),
        None => match strict(tail) {
            Some((data, after)) => (data, after, "rfc5424"),
            None => {
                let (data, after) = lenient(tail);
                (data, after, "invalid_structured_data")
            }
        },
    };
    m.attributes = data.attributes;
    let body = after.strip_prefix(' ').unwrap_or(after);
    m.body = body.strip_prefix('\u{feff}').unwrap_or(body).trim_end_matches(ENDS).to_owned();
    Some(status)
}

/// Section 6.3.2: printable US-ASCII without `=`, blank, `]`, `"`; 32 at most.
fn is_name(name: &str) -> bool {
    let ok = |b: u8| b.is_ascii_graphic() && !matches!(b, b'=' | b']' | b'"');
    (1..=32).contains(&name.len()) && name.bytes().all(ok)
}

/// `[id name="value" …]…`, and what follows.
fn strict(text: &str) -> Option<(Data, &str)> {
    let (mut data, mut rest) = (Data::default(), text);
    while let Some(element) = rest.strip_prefix('[') {
        let end = element.find([' ', ']'])?;
        let id = Some(&element[..end]).filter(|id| is_name(id))?;
        rest = &element[end..];
        let mut is_empty = true;
        loop {
            let param = rest.trim_start_matches(' ');
            if let Some(after) = param.strip_prefix(']') {
                rest = after;
                break;
            }
            if param.len() == rest.len() {
                return None;
            }
            let (name, quoted) = param.split_once("=\"").filter(|(name, _)| is_name(name))?;
            let (value, after) = quoted_value(quoted)?;
            data.add(id, name, value);
            (rest, is_empty) = (after, false);
        }
        if is_empty {
            data.add(id, "", String::new());
        }
    }
    (rest.len() < text.len() && (rest.is_empty() || rest.starts_with(' '))).then_some((data, rest))
}

/// What is before the closing quote, without the escapes `\"`, `\\`, `\]`; and what is after it.
pub(super) fn quoted_value(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    loop {
        let (at, c) = chars.next()?;
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => match chars.clone().next()?.1 {
                escaped @ ('"' | '\\' | ']') => {
                    chars.next();
                    value.push(escaped);
                }
                _ => value.push('\\'),
            },
            c => value.push(c),
        }
    }
}

/// The same as VMware (`[Originator@6876 sub=x user=root]`), Check Point (`[action:"Update"; flags:"1"]`) and others write
/// it: values without quotes, colons, elements without a name. Where an element does not end, it is text.
fn lenient(text: &str) -> (Data, &str) {
    let (mut data, mut rest) = (Data::default(), text);
    while let Some(element) = rest.strip_prefix('[') {
        let Some(after) = lenient_element(element, &mut data) else { break };
        rest = after;
    }
    (data, rest)
}

fn lenient_element<'a>(element: &'a str, data: &mut Data) -> Option<&'a str> {
    let mut params: Vec<(&str, String)> = Vec::new();
    let (mut id, mut rest) = ("", element);
    loop {
        rest = rest.trim_start_matches([' ', ';', ',']);
        if let Some(after) = rest.strip_prefix(']') {
            for (name, value) in &params {
                data.add(id, name, value.clone());
            }
            if params.is_empty() && !id.is_empty() {
                data.add(id, "", String::new());
            }
            return Some(after);
        }
        let end = rest.find(['=', ':', ' ', ']', ';'])?;
        // Every parameter is kept under its element's name: a long one would be kept as often as it has parameters.
        let name = &rest[..rest.floor_char_boundary(end.min(MAX_SD_NAME))];
        let Some(said) = rest[end..].strip_prefix(['=', ':']) else {
            if id.is_empty() && params.is_empty() {
                id = name;
            }
            rest = &rest[end..];
            continue;
        };
        let (value, after) = match said.strip_prefix('"').and_then(quoted_value) {
            Some(found) => found,
            None => {
                let end = said.find([' ', ']', ';'])?;
                (said[..end].to_owned(), &said[end..])
            }
        };
        params.push((name, value));
        rest = after;
    }
}

//! Syslog: one message's bytes to a log line, and TCP's framing to messages.
//!
//! A line is never lost: what does not parse keeps its bytes as body and says why in `parse_status`.
//!
//! | file | says |
//! |---|---|
//! | `structured` | RFC 5424 |
//! | `legacy` | RFC 3164 and what devices of Cisco, Huawei and others send in its name |
//! | `time` | instants as all of them write them |
//! | `content` | CEF, LEEF and `key=value` in a message's text |
//! | `framing` | where in a TCP stream a message ends (RFC 6587) |

mod content;
mod framing;
mod legacy;
mod structured;
#[cfg(test)]
mod tests;
mod time;

use std::collections::BTreeMap;

use chrono_tz::Tz;

pub use self::framing::Framer;
use self::time::Receipt;

/// Longest message kept, bytes; longer ones are cut and say so.
pub const MAX_MESSAGE: usize = 64 << 10;
/// Bytes kept of the name of a structured data element or parameter. RFC 5424 section 6.3.2 has 32.
pub const MAX_SD_NAME: usize = 64;
/// PRI of a message without one: user.notice (RFC 3164 section 4.3.3).
pub const DEFAULT_PRI: u8 = 13;

/// A message taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// 0 to 23.
    pub facility: u8,
    /// 0 (emergency) to 7 (debug).
    pub severity: u8,
    /// The device's own time, microseconds since 1970.
    pub device_us: Option<i64>,
    /// Host name it claims.
    pub hostname: Option<String>,
    /// Application.
    pub app: Option<String>,
    /// Process id.
    pub process: Option<String>,
    /// Message id.
    pub message_id: Option<String>,
    /// Structured data, `id.name` to value.
    pub attributes: BTreeMap<String, String>,
    /// The text.
    pub body: String,
    /// How it was read (`rfc5424`, `rfc3164`; `cef`, `leef`, `key_value` where only its text says something), or why it is
    /// kept as it came.
    pub status: &'static str,
    /// Whether `body` is not all the bytes said: kept raw then.
    pub keep_raw: bool,
}

/// Names of the severities.
pub const SEVERITIES: [&str; 8] = ["emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"];

/// What senders put at the end of a datagram.
const ENDS: [char; 3] = ['\r', '\n', '\0'];

/// Takes a message apart. `received_us` resolves the year that RFC 3164 leaves out, `zone` its time zone.
pub fn parse(bytes: &[u8], received_us: i64, zone: Tz) -> Message {
    let receipt = Receipt { us: received_us, zone };
    let cut = bytes.len() > MAX_MESSAGE;
    let bytes = &bytes[..bytes.len().min(MAX_MESSAGE)];
    let text = String::from_utf8_lossy(bytes);
    let lossy = matches!(text, std::borrow::Cow::Owned(_));
    let (pri, rest, had_pri) = match pri(&text) {
        Some((pri, rest)) => (pri, rest, true),
        None => (DEFAULT_PRI, &*text, false),
    };
    let begun = Message { facility: pri >> 3, severity: pri & 7, ..Message::default() };
    let mut m = begun.clone();
    let structured = rest.strip_prefix("1 ").and_then(|rest| structured::rfc5424(rest, receipt, &mut m));
    let header = structured.or_else(|| {
        m = begun;
        legacy::rfc3164(rest, receipt, &mut m).map(|()| "rfc3164")
    });
    if header.is_none() {
        m.body = rest.trim_end_matches(ENDS).to_owned();
    }
    let content = content::read(receipt, &mut m);
    m.keep_raw = lossy || cut || header == Some("invalid_structured_data");
    m.status = match header.or(content) {
        _ if cut => "truncated",
        _ if lossy => "invalid_utf8",
        Some(status) => status,
        None if had_pri => "no_header",
        None => "no_priority",
    };
    m
}

fn pri(text: &str) -> Option<(u8, &str)> {
    let (digits, rest) = text.strip_prefix('<')?.split_once('>')?;
    if digits.is_empty() || digits.len() > 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let pri: u8 = digits.parse().ok().filter(|n| *n <= 191)?;
    Some((pri, rest))
}

fn nil(field: &str) -> Option<String> {
    (field != "-" && !field.is_empty()).then(|| field.to_owned())
}

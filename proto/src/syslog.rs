//! Syslog: one message's bytes to a log line, and TCP's framing to messages.
//!
//! RFC 5424, RFC 3164 and what real devices send in its name. A line is never lost: what does not parse keeps its bytes
//! as body and says why in `parse_status`. Framing (RFC 6587): octet counting and LF or NUL are told apart frame by
//! frame, because relays mix them on one connection.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike, NaiveDateTime, TimeZone};
use chrono_tz::Tz;

/// Longest message kept, bytes; longer ones are cut and say so.
pub const MAX_MESSAGE: usize = 64 << 10;
/// Bytes kept of the name of a structured data element. RFC 5424 section 6.3.2 has 32.
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
    /// `rfc5424`, `rfc3164`, or why it is kept as it came.
    pub status: &'static str,
    /// Whether `body` is not all the bytes said: kept raw then.
    pub keep_raw: bool,
}

/// Names of the severities.
pub const SEVERITIES: [&str; 8] = ["emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"];

/// Takes a message apart. `received_us` resolves the year that RFC 3164 leaves out, `zone` its time zone.
pub fn parse(bytes: &[u8], received_us: i64, zone: Tz) -> Message {
    let cut = bytes.len() > MAX_MESSAGE;
    let bytes = &bytes[..bytes.len().min(MAX_MESSAGE)];
    let text = String::from_utf8_lossy(bytes);
    let lossy = matches!(text, std::borrow::Cow::Owned(_));
    let (pri, rest, had_pri) = match pri(&text) {
        Some((pri, rest)) => (pri, rest, true),
        None => (DEFAULT_PRI, &*text, false),
    };
    let mut message = Message { facility: pri >> 3, severity: pri & 7, ..Message::default() };
    let parsed =
        rest.strip_prefix("1 ").and_then(|rest| rfc5424(rest, &mut message)).map(|()| "rfc5424").or_else(|| {
            message = Message { facility: pri >> 3, severity: pri & 7, ..Message::default() };
            rfc3164(rest, received_us, zone, &mut message).map(|()| "rfc3164")
        });
    message.status = match parsed {
        Some(_) if cut => "truncated",
        Some(_) if lossy => "invalid_utf8",
        Some(status) => status,
        None => {
            message.body = rest.trim_end_matches(['\r', '\n', '\0']).to_owned();
            match (cut, lossy, had_pri) {
                (true, ..) => "truncated",
                (_, true, _) => "invalid_utf8",
                (_, _, true) => "no_header",
                _ => "no_priority",
            }
        }
    };
    message.keep_raw = lossy || cut;
    message
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

/// RFC 5424 section 6, after the version.
fn rfc5424(rest: &str, m: &mut Message) -> Option<()> {
    let mut fields = rest.splitn(6, ' ');
    let timestamp = fields.next()?;
    if timestamp != "-" {
        m.device_us = Some(DateTime::parse_from_rfc3339(timestamp).ok()?.timestamp_micros());
    }
    m.hostname = nil(fields.next()?);
    m.app = nil(fields.next()?);
    m.process = nil(fields.next()?);
    m.message_id = nil(fields.next()?);
    let tail = fields.next()?;
    let after = match tail.strip_prefix('-') {
        Some(after) => after,
        None => structured_data(tail, &mut m.attributes)?,
    };
    if !after.is_empty() && !after.starts_with(' ') {
        return None;
    }
    let body = after.strip_prefix(' ').unwrap_or(after);
    let body = body.strip_prefix('\u{feff}').unwrap_or(body);
    m.body = body.trim_end_matches(['\r', '\n', '\0']).to_owned();
    Some(())
}

/// `[id name="value" …]…`, the escapes `\"`, `\\`, `\]`; returns what follows.
fn structured_data<'a>(text: &'a str, attributes: &mut BTreeMap<String, String>) -> Option<&'a str> {
    let mut rest = text;
    while let Some(element) = rest.strip_prefix('[') {
        let end = element.find([' ', ']'])?;
        // Every parameter is kept under its element's name: a long one would be kept as often as it has parameters.
        let id = &element[..element.floor_char_boundary(end.min(MAX_SD_NAME))];
        rest = &element[end..];
        loop {
            if let Some(after) = rest.strip_prefix(']') {
                rest = after;
                break;
            }
            let param = rest.trim_start_matches(' ');
            if param.len() == rest.len() {
                return None;
            }
            if let Some(after) = param.strip_prefix(']') {
                rest = after;
                break;
            }
            let (name, quoted) = param.split_once("=\"")?;
            let mut value = String::new();
            let mut chars = quoted.char_indices();
            rest = loop {
                let (at, c) = chars.next()?;
                match c {
                    '"' => break &quoted[at + 1..],
                    '\\' => match chars.clone().next()?.1 {
                        escaped @ ('"' | '\\' | ']') => {
                            chars.next();
                            value.push(escaped);
                        }
                        _ => value.push('\\'),
                    },
                    c => value.push(c),
                }
            };
            attributes.insert(format!("{id}.{name}"), value);
        }
    }
    (rest.len() < text.len()).then_some(rest)
}

/// RFC 3164 section 4.1 and its relatives: `[seq: ][*|.]Mmm dd [yyyy ]hh:mm:ss[.frac][ ZONE][:] [host ]tag[pid]: text`,
/// or an RFC 3339 time in the place of the old one.
fn rfc3164(text: &str, received_us: i64, zone: Tz, m: &mut Message) -> Option<()> {
    let text = text.trim_end_matches(['\r', '\n', '\0']);
    // Cisco: a sequence number and a mark of an unsynchronised clock.
    let mut rest = text;
    let mut cisco = false;
    if let Some((sequence, after)) = rest.split_once(": ")
        && !sequence.is_empty()
        && sequence.len() <= 12
        && sequence.bytes().all(|b| b.is_ascii_digit())
    {
        m.attributes.insert("sequence".into(), sequence.into());
        rest = after;
        cisco = true;
    }
    rest = rest.trim_start_matches(['*', '.']);
    let (device_us, after) = timestamp3164(rest, received_us, zone)?;
    m.device_us = Some(device_us);
    rest = after;
    if let Some(after) = rest.strip_prefix(':') {
        cisco = true;
        rest = after;
    }
    rest = rest.strip_prefix(' ').unwrap_or(rest);
    if !cisco && !rest.starts_with('%') {
        // A host name is a word that is no tag: tags end in ':' or '['.
        if let Some((word, after)) = rest.split_once(' ')
            && !word.ends_with(':')
            && !word.contains('[')
            && !word.is_empty()
        {
            m.hostname = nil(word);
            rest = after;
        }
    }
    m.body = rest.to_owned();
    let tag_end = rest.find([':', '[', ' ']).unwrap_or(0);
    let tag = &rest[..tag_end];
    if tag_end > 0 && tag_end <= 64 {
        let after = &rest[tag_end..];
        if let Some(body) = after.strip_prefix(':') {
            m.app = Some(tag.trim_start_matches('%').to_owned());
            m.body = body.strip_prefix(' ').unwrap_or(body).to_owned();
            if let Some(mnemonic) = tag.strip_prefix('%') {
                cisco_tag(mnemonic, m);
            }
        } else if let Some((pid, body)) = after.strip_prefix('[').and_then(|a| a.split_once(']')) {
            m.app = Some(tag.to_owned());
            m.process = nil(pid);
            let body = body.strip_prefix(':').unwrap_or(body);
            m.body = body.strip_prefix(' ').unwrap_or(body).to_owned();
        }
    }
    Some(())
}

/// `%FAC-SEV-MNEMONIC` (Cisco IOS): the device's own facility and severity.
fn cisco_tag(mnemonic: &str, m: &mut Message) {
    let mut parts = mnemonic.splitn(3, '-');
    if let (Some(facility), Some(severity), Some(name)) = (parts.next(), parts.next(), parts.next())
        && severity.len() == 1
        && severity.bytes().all(|b| (b'0'..=b'7').contains(&b))
    {
        m.attributes.insert("cisco.facility".into(), facility.into());
        m.attributes.insert("cisco.mnemonic".into(), name.into());
        m.message_id = Some(mnemonic.to_owned());
    }
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

fn timestamp3164(text: &str, received_us: i64, zone: Tz) -> Option<(i64, &str)> {
    if text.as_bytes().first().is_some_and(u8::is_ascii_digit) {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let at = DateTime::parse_from_rfc3339(word.trim_end_matches(':')).ok()?;
        return Some((at.timestamp_micros(), rest));
    }
    let month = MONTHS.iter().position(|m| text.starts_with(m))? as u32 + 1;
    let rest = text.get(3..)?.strip_prefix(' ')?.trim_start_matches(' ');
    let (day, rest) = rest.split_once(' ')?;
    let day: u32 = day.parse().ok()?;
    // Some devices put the year before the time, some after.
    let (year, rest) = match rest.split_once(' ') {
        Some((word, after)) if word.len() == 4 && word.bytes().all(|b| b.is_ascii_digit()) => {
            (word.parse::<i32>().ok(), after)
        }
        _ => (None, rest),
    };
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == ':' || c == '.')).unwrap_or(rest.len());
    let clock = rest[..end].trim_end_matches([':', '.']);
    let mut after = &rest[clock.len()..];
    let mut parts = clock.split(':');
    let hour: u32 = parts.next()?.parse().ok()?;
    let minute: u32 = parts.next()?.parse().ok()?;
    let seconds = parts.next()?;
    let (second, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let second: u32 = second.parse().ok()?;
    let micros = format!("{fraction:0<6}").get(..6)?.parse::<u32>().ok()?;
    // A zone's abbreviation, as Cisco writes it. Only UTC's names are unambiguous.
    let mut zone = zone;
    for name in ["UTC", "GMT", "Z"] {
        if let Some(rest) = after.strip_prefix(' ').and_then(|a| a.strip_prefix(name))
            && (rest.is_empty() || rest.starts_with([':', ' ']))
        {
            zone = Tz::UTC;
            after = rest;
            break;
        }
    }
    let received = DateTime::from_timestamp_micros(received_us)?.with_timezone(&zone);
    let resolve = |year: i32| -> Option<i64> {
        let naive: NaiveDateTime = chrono::NaiveDate::from_ymd_opt(year, month, day)?.and_hms_micro_opt(
            hour,
            minute,
            second.min(59),
            micros,
        )?;
        zone.from_local_datetime(&naive).earliest().map(|t| t.timestamp_micros())
    };
    let at = match year {
        Some(year) => resolve(year)?,
        // The year that brings it closest to receipt: within six months either way.
        None => {
            (received.year() - 1..=received.year() + 1).filter_map(resolve).min_by_key(|at| (at - received_us).abs())?
        }
    };
    Some((at, after))
}

/// Takes messages out of a TCP stream's bytes (RFC 6587).
#[derive(Debug, Default)]
pub struct Framer {
    buffer: Vec<u8>,
    /// The rest of an oversize message is being skipped up to its end.
    skipping: Option<Skip>,
}

#[derive(Clone, Copy, Debug)]
enum Skip {
    Bytes(usize),
    Line,
}

impl Framer {
    /// Takes in bytes as they arrived and returns the messages they complete. An oversize message is returned cut at
    /// one byte over [`MAX_MESSAGE`], so that [`parse`] flags it; the rest of it is skipped.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.buffer.extend_from_slice(bytes);
        let mut out = Vec::new();
        let mut at = 0;
        loop {
            let rest = &self.buffer[at..];
            match self.skipping {
                Some(Skip::Bytes(n)) => {
                    let k = n.min(rest.len());
                    at += k;
                    if k < n {
                        self.skipping = Some(Skip::Bytes(n - k));
                        break;
                    }
                    self.skipping = None;
                    continue;
                }
                Some(Skip::Line) => match memchr::memchr2(b'\n', 0, rest) {
                    Some(end) => {
                        at += end + 1;
                        self.skipping = None;
                        continue;
                    }
                    None => {
                        at = self.buffer.len();
                        break;
                    }
                },
                None => {}
            }
            match counted(rest) {
                Counted::More => break,
                Counted::Frame { start, len } => {
                    let kept = len.min(MAX_MESSAGE + 1);
                    if rest.len() < start + kept {
                        break;
                    }
                    out.push(rest[start..start + kept].to_vec());
                    at += start + kept;
                    if len > kept {
                        self.skipping = Some(Skip::Bytes(len - kept));
                    }
                }
                Counted::No => match memchr::memchr2(b'\n', 0, rest) {
                    Some(end) => {
                        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
                        if !line.is_empty() {
                            out.push(line[..line.len().min(MAX_MESSAGE + 1)].to_vec());
                        }
                        at += end + 1;
                    }
                    None if rest.len() > MAX_MESSAGE => {
                        out.push(rest[..MAX_MESSAGE + 1].to_vec());
                        at += MAX_MESSAGE + 1;
                        self.skipping = Some(Skip::Line);
                    }
                    None => break,
                },
            }
        }
        self.buffer.drain(..at);
        out
    }

    /// What is left when the peer closes: an unterminated last line is a message too.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        let rest = std::mem::take(&mut self.buffer);
        let skipped = self.skipping.take().is_some();
        (!rest.is_empty() && !skipped).then_some(rest)
    }
}

enum Counted {
    Frame { start: usize, len: usize },
    More,
    No,
}

/// `MSG-LEN SP MSG`: a frame is counted when it begins with a number without leading zero, a blank, and then `<`.
fn counted(rest: &[u8]) -> Counted {
    let digits = rest.iter().take(10).take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 || rest[0] == b'0' || digits > 9 {
        return if rest.is_empty() { Counted::More } else { Counted::No };
    }
    match (rest.get(digits), rest.get(digits + 1)) {
        (None, _) | (Some(b' '), None) => Counted::More,
        (Some(b' '), Some(b'<')) => {
            let len = rest[..digits].iter().fold(0usize, |n, b| n * 10 + usize::from(b - b'0'));
            Counted::Frame { start: digits + 1, len }
        }
        _ => Counted::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIVED: i64 = 1_704_067_210_000_000; // 2024-01-01T00:00:10Z

    fn p(text: &str) -> Message {
        parse(text.as_bytes(), RECEIVED, Tz::UTC)
    }

    #[test]
    fn rfc5424_examples() {
        let m = p("<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed");
        assert_eq!((m.facility, m.severity, m.status), (4, 2, "rfc5424"));
        assert_eq!(
            (m.hostname.as_deref(), m.app.as_deref(), m.process.as_deref()),
            (Some("mymachine.example.com"), Some("su"), None)
        );
        assert_eq!(m.body, "'su root' failed");
        assert_eq!(m.device_us, Some(1_065_910_455_003_000));
        let m = p(r#"<165>1 - - - - - [ex@1 a="x \"q\" \] \\" b=""][two@2]"#);
        assert_eq!(m.attributes["ex@1.a"], r#"x "q" ] \"#);
        assert_eq!((m.attributes["ex@1.b"].as_str(), m.body.as_str(), m.status), ("", "", "rfc5424"));
    }

    #[test]
    fn rfc3164_and_its_relatives() {
        let m = p("<13>Dec 31 23:59:59 host app[12]: hello");
        assert_eq!(m.device_us, Some(1_704_067_199_000_000));
        assert_eq!(
            (m.hostname.as_deref(), m.app.as_deref(), m.process.as_deref()),
            (Some("host"), Some("app"), Some("12"))
        );
        assert_eq!((m.body.as_str(), m.status), ("hello", "rfc3164"));
        let m = p("<189>29: *Mar  1 18:46:11.123 UTC: %SYS-5-CONFIG_I: Configured from console");
        assert_eq!(m.app.as_deref(), Some("SYS-5-CONFIG_I"));
        assert_eq!(m.attributes["cisco.mnemonic"], "CONFIG_I");
        assert_eq!(m.body, "Configured from console");
        let m = p("<13>2024-01-01T00:00:00+01:00 h t: b");
        assert_eq!((m.device_us, m.hostname.as_deref()), (Some(1_704_063_600_000_000), Some("h")));
    }

    #[test]
    fn nothing_is_lost() {
        assert_eq!((p("just words").body.as_str(), p("just words").status), ("just words", "no_priority"));
        assert_eq!((p("<34>x").body.as_str(), p("<34>x").status), ("x", "no_header"));
        assert_eq!(p("<999>x").body, "<999>x");
        let m = parse(b"<13>Jan  1 00:00:00 h t: \xff", RECEIVED, Tz::UTC);
        assert_eq!((m.status, m.keep_raw), ("invalid_utf8", true));
    }

    #[test]
    fn framings_mix_on_one_connection() {
        let stream = b"5 <1>ab<2>line\r\n\n3 <3><4>z\0tail";
        for step in 1..stream.len() {
            let mut framer = Framer::default();
            let mut got: Vec<_> = stream.chunks(step).flat_map(|c| framer.push(c)).collect();
            got.extend(framer.finish());
            let got: Vec<_> = got.iter().map(|m| String::from_utf8_lossy(m).into_owned()).collect();
            assert_eq!(got, ["<1>ab", "<2>line", "<3>", "<4>z", "tail"], "step {step}");
        }
    }

    #[test]
    fn an_oversize_message_is_cut_and_the_next_one_survives() {
        for mut stream in [
            vec![b'x'; MAX_MESSAGE * 2],
            format!("{} <1>{}", MAX_MESSAGE * 2 + 3, "y".repeat(MAX_MESSAGE * 2)).into_bytes(),
        ] {
            if stream[0] == b'x' {
                stream.push(b'\n');
            }
            stream.extend(b"<1>next\n");
            let mut framer = Framer::default();
            let got: Vec<_> = stream.chunks(1000).flat_map(|c| framer.push(c)).collect();
            assert_eq!((got.len(), got[0].len(), got[1].as_slice()), (2, MAX_MESSAGE + 1, &b"<1>next"[..]));
            assert_eq!(parse(&got[0], RECEIVED, Tz::UTC).status, "truncated");
        }
    }

    #[test]
    fn structured_data_is_not_worth_much_more_than_its_bytes() {
        let params: String = (0..5_000).map(|n| format!(" {n}=\"\"")).collect();
        let line = format!("<13>1 - h a p m [{}{params}] text", "i".repeat(20_000));
        let message = parse(line.as_bytes(), RECEIVED, Tz::UTC);
        let kept: usize = message.attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(kept <= 32 * line.len(), "{kept} bytes of {}", line.len());
        assert!(message.body.ends_with("text"));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic_and_framing_ignores_segmentation(noise: Vec<u8>, text in "(<[0-9]{1,3}>)?(1 )?[ -~]{0,80}", step in 1usize..40) {
            let _ = parse(&noise, RECEIVED, Tz::UTC);
            let _ = parse(text.as_bytes(), RECEIVED, Tz::UTC);
            let all = [noise, text.into_bytes()].concat();
            let whole = { let mut f = Framer::default(); let mut v = f.push(&all); v.extend(f.finish()); v };
            let mut f = Framer::default();
            let mut parts: Vec<_> = all.chunks(step).flat_map(|c| f.push(c)).collect();
            parts.extend(f.finish());
            assert_eq!(whole, parts);
        }
    }
}

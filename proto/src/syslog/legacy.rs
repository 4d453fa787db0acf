//! RFC 3164 and its relatives: `[time] [host] tag[pid]: text`, and what network devices send in its name.

use super::time::{self, Receipt};
use super::{ENDS, Message, nil};

/// Longest tag. RFC 3164 section 4.1.3 has 32; some senders have whole paths.
const MAX_TAG: usize = 64;
/// A Cisco's mnemonic begins no later.
const CISCO_HEADER: usize = 160;

/// Takes a message apart that has a header; `None` where there is none.
pub(super) fn rfc3164(text: &str, receipt: Receipt, m: &mut Message) -> Option<()> {
    let text = text.trim_end_matches(ENDS).trim_start_matches(' ');
    if let Some(read) = cisco(text, receipt, m) {
        *m = read;
        return Some(());
    }
    let mut rest = text;
    let sequence = sequence(rest);
    if let Some((number, after)) = sequence {
        m.attributes.insert("sequence".into(), number.into());
        rest = after.trim_start_matches(' ');
    }
    let Some(stamp) = time::stamp(rest.trim_start_matches(['*', '.']), receipt) else {
        m.attributes.remove("sequence");
        // No time, but a program that names its process.
        let (tag, after) = text.split_once('[').filter(|(tag, _)| is_tag(tag))?;
        let (process, _) = after.split_once("]:").filter(|(process, _)| is_process(process))?;
        content(&text[tag.len()..], tag, m);
        m.process = nil(process);
        return Some(());
    };
    m.device_us = stamp.us;
    rest = stamp.rest;
    let ends_with_colon = rest.starts_with(':');
    rest = rest.strip_prefix(':').unwrap_or(rest).trim_start_matches(' ');
    if let Some((host, after)) = rest.strip_prefix("Message forwarded from ").and_then(|said| said.split_once(": ")) {
        // AIX.
        m.hostname = nil(host);
        rest = after;
    } else if !ends_with_colon && sequence.is_none() && !is_message(rest) {
        // A host name is a word that is no tag: tags end in ':' or '['.
        if let Some((word, after)) = rest.split_once(' ')
            && !word.ends_with(':')
            && !word.contains('[')
            && !word.is_empty()
        {
            m.hostname = nil(word);
            rest = after.trim_start_matches(' ');
        }
    }
    m.body = rest.to_owned();
    if huawei(rest, m).is_none() && !is_message(rest) {
        let end = rest.find([':', '[', ' ']).unwrap_or(0);
        let tag = &rest[..end];
        if is_tag(tag) {
            content(&rest[end..], tag, m);
        }
    }
    Some(())
}

/// What begins with a name of its own that is no tag.
fn is_message(text: &str) -> bool {
    ["CEF:", "LEEF:", "%", "last message repeated ", "message repeated "].iter().any(|name| text.starts_with(name))
}

/// A word that may name a program.
fn is_tag(tag: &str) -> bool {
    let of_a_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/' | b'@' | b'(' | b')');
    (1..=MAX_TAG).contains(&tag.len()) && tag.bytes().all(of_a_name) && tag.bytes().any(|b| b.is_ascii_alphanumeric())
}

fn is_process(process: &str) -> bool {
    !process.is_empty() && process.len() <= MAX_TAG && !process.contains([' ', '['])
}

/// What follows a tag: `[pid]: text`, `: text`, or the text (RFC 3164 section 4.1.3: whatever is not of its name ends it).
fn content(after: &str, tag: &str, m: &mut Message) {
    let text = |body: &str| body.strip_prefix(' ').unwrap_or(body).to_owned();
    if let Some(body) = after.strip_prefix(':') {
        m.app = Some(tag.to_owned());
        m.body = text(body);
    } else if let Some((process, body)) = after.strip_prefix('[').and_then(|said| said.split_once(']')) {
        if is_process(process) {
            m.app = Some(tag.to_owned());
            m.process = nil(process);
            m.body = text(body.strip_prefix(':').unwrap_or(body));
        }
    } else if after.starts_with(' ') && !tag.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        m.app = Some(tag.to_owned());
        m.body = text(after);
    }
}

/// A sequence number: digits, a colon.
fn sequence(text: &str) -> Option<(&str, &str)> {
    let (number, after) = text.split_once(':')?;
    let is_number = (1..=12).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
    (is_number && after.starts_with(' ')).then_some((number, after))
}

/// `%FACILITY[-SUBFACILITY]-SEVERITY-MNEMONIC`, without the sign.
struct Mnemonic<'a> {
    whole: &'a str,
    facility: &'a str,
    name: &'a str,
}

fn mnemonic(whole: &str) -> Option<Mnemonic<'_>> {
    let of_a_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'/');
    if whole.len() > MAX_TAG || !whole.bytes().all(of_a_name) {
        return None;
    }
    let dashes: Vec<usize> = whole.match_indices('-').map(|(at, _)| at).collect();
    let level = |pair: &&[usize]| {
        pair[1] == pair[0] + 2 && (b'0'..=b'7').contains(&whole.as_bytes()[pair[0] + 1]) && pair[0] > 0
    };
    let at = dashes.windows(2).find(level)?;
    let name = &whole[at[1] + 1..];
    (!name.is_empty()).then_some(Mnemonic { whole, facility: &whole[..at[0]], name })
}

/// Where a mnemonic stands, and what follows its colon.
fn find_mnemonic(text: &str) -> Option<(usize, Mnemonic<'_>, &str)> {
    let head = &text[..text.floor_char_boundary(CISCO_HEADER)];
    head.match_indices('%').find_map(|(at, _)| {
        let begins = at == 0 || matches!(text.as_bytes()[at - 1], b' ' | b':');
        let said = &text[at + 1..];
        let end = said.find([':', ' ']).filter(|_| begins)?;
        let after = said[end..].trim_start_matches(' ').strip_prefix(':')?;
        Some((at, mnemonic(&said[..end])?, after.strip_prefix(' ').unwrap_or(after)))
    })
}

/// `[sequence:] [origin:] [*|.]time [zone]: [host|process[pid]:] %FACILITY-SEVERITY-MNEMONIC: text`, whatever of it a
/// platform, or `logging origin-id`, `logging device-id`, `service timestamps`, `service sequence-numbers`, puts there.
fn cisco(text: &str, receipt: Receipt, begun: &Message) -> Option<Message> {
    let (at, mnemonic, body) = find_mnemonic(text)?;
    let mut m = begun.clone();
    let (mut rest, mut has_time, mut origin) = (&text[..at], false, None);
    loop {
        rest = rest.trim_start_matches([' ', ':']);
        if rest.is_empty() {
            break;
        }
        if !has_time && origin.is_none() && !m.attributes.contains_key("sequence") {
            let number = rest
                .split_once(':')
                .filter(|(number, _)| (1..=12).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit()));
            // Two digits and a colon may also begin an up-time.
            if let Some((number, after)) = number.filter(|(_, after)| !after.starts_with(|c: char| c.is_ascii_digit()))
            {
                m.attributes.insert("sequence".into(), number.into());
                rest = after;
                continue;
            }
        }
        if !has_time {
            if let Some(stamp) = time::stamp(rest.trim_start_matches(['*', '.', ';']), receipt) {
                (m.device_us, rest, has_time) = (stamp.us, stamp.rest, true);
                continue;
            }
            if let Some((up, after)) = up_time(rest) {
                m.attributes.insert("uptime".into(), up.into());
                (rest, has_time) = (after, true);
                continue;
            }
        }
        let word = &rest[..rest.find(' ').unwrap_or(rest.len())];
        // An address has colons itself.
        let is_address = word.trim_end_matches(':').parse::<std::net::IpAddr>().is_ok();
        let word = if is_address { word.trim_end_matches(':') } else { &word[..word.find(':').unwrap_or(word.len())] };
        rest = &rest[word.len()..];
        match word.strip_suffix(']').and_then(|process| process.split_once('[')) {
            Some((app, process)) if m.app.is_none() => (m.app, m.process) = (nil(app), nil(process)),
            Some(_) => return None,
            None if word.contains('/') => _ = m.attributes.insert("cisco.node".into(), word.into()),
            None if has_time && m.hostname.is_none() => m.hostname = nil(word),
            None if !has_time && origin.is_none() => origin = nil(word),
            None => return None,
        }
    }
    match (&m.hostname, origin) {
        (None, origin) => m.hostname = origin,
        (Some(_), Some(origin)) => _ = m.attributes.insert("cisco.origin".into(), origin),
        (Some(_), None) => {}
    }
    m.attributes.insert("cisco.facility".into(), mnemonic.facility.into());
    m.attributes.insert("cisco.mnemonic".into(), mnemonic.name.into());
    m.message_id = Some(mnemonic.whole.to_owned());
    m.app.get_or_insert_with(|| mnemonic.whole.to_owned());
    m.body = body.to_owned();
    Some(m)
}

/// How long a device has been up, in place of a time: `00:00:46`, `1d02h`, `5w3d`.
fn up_time(text: &str) -> Option<(&str, &str)> {
    let len = text
        .bytes()
        .take_while(|b| b.is_ascii_digit() || matches!(b, b':' | b'y' | b'w' | b'd' | b'h' | b'm' | b's'))
        .count();
    let (up, after) = (text[..len].trim_end_matches(':'), &text[len..]);
    let is_up = up.starts_with(|c: char| c.is_ascii_digit()) && up.contains([':', 'y', 'w', 'd', 'h', 'm', 's']);
    (is_up && text[up.len()..].starts_with(':') && (after.is_empty() || after.starts_with(' '))).then_some((up, after))
}

/// `%%01MODULE/level/BRIEF(type)[number]: text`, as Huawei and H3C name their messages.
fn huawei(text: &str, m: &mut Message) -> Option<()> {
    let named = text.strip_prefix("%%")?;
    let (head, body) = named.split_once(':').filter(|(head, _)| head.len() <= MAX_TAG)?;
    let digits = head.bytes().take_while(u8::is_ascii_digit).count();
    let mut parts = head[digits..].splitn(3, '/');
    let (module, level, brief) = (parts.next()?, parts.next()?, parts.next()?);
    if module.is_empty() || level.len() != 1 || !level.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let brief = &brief[..brief.find(['(', '[', ' ']).unwrap_or(brief.len())];
    m.attributes.insert("huawei.module".into(), module.into());
    m.attributes.insert("huawei.level".into(), level.into());
    m.attributes.insert("huawei.brief".into(), brief.into());
    m.app = Some(module.to_owned());
    m.message_id = Some(format!("{module}/{level}/{brief}"));
    m.body = body.strip_prefix(' ').unwrap_or(body).to_owned();
    Some(())
}

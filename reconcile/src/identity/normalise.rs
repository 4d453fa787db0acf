//! What is an identifier at all. Everything that is none is dropped with a reason, never passed on: one junk value
//! shared by thousands of records would otherwise glue them together.

use std::collections::BTreeSet;
use std::net::IpAddr;

/// A MAC address as identity sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac {
    /// Twelve upper-case hex digits.
    pub hex: String,
    /// Locally administered: medium confidence, never identity by itself.
    pub local: bool,
}

/// Why a MAC was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MacReason {
    /// Not twelve hex digits.
    Malformed,
    /// All zero.
    Zero,
    /// All ones.
    Broadcast,
    /// The group bit is set.
    Multicast,
    /// VRRP, HSRP or GLBP: a virtual router, not a device.
    Virtual,
}

impl MacReason {
    /// As counters and rows spell it.
    pub fn name(self) -> &'static str {
        match self {
            MacReason::Malformed => "mac_malformed",
            MacReason::Zero => "mac_zero",
            MacReason::Broadcast => "mac_broadcast",
            MacReason::Multicast => "mac_multicast",
            MacReason::Virtual => "mac_virtual_router",
        }
    }
}

/// Without separators, in upper case.
fn strip_mac(text: &str) -> String {
    let mut hex = String::with_capacity(12);
    hex.extend(text.chars().filter(|c| !matches!(c, ':' | '-' | '.') && !c.is_whitespace()));
    hex.make_ascii_uppercase();
    hex
}

/// One MAC.
///
/// # Errors
/// [`MacReason`] where the text is no MAC address, or one that names no device.
pub fn mac(text: &str) -> Result<Mac, MacReason> {
    stripped_mac(strip_mac(text))
}

fn stripped_mac(hex: String) -> Result<Mac, MacReason> {
    if hex.len() != 12 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(MacReason::Malformed);
    }
    if hex == "000000000000" {
        return Err(MacReason::Zero);
    }
    if hex == "FFFFFFFFFFFF" {
        return Err(MacReason::Broadcast);
    }
    let first = u8::from_str_radix(&hex[..2], 16).unwrap_or(0);
    if first & 1 != 0 {
        return Err(MacReason::Multicast);
    }
    let virtual_router = ["00005E0001", "00005E0002", "00000C07AC", "00000C9FF", "000573A0", "0007B400"];
    if virtual_router.iter().any(|prefix| hex.starts_with(prefix)) {
        return Err(MacReason::Virtual);
    }
    Ok(Mac { local: first & 2 != 0, hex })
}

/// A list of MACs: split on comma and semicolon, and a piece that is not one MAC splits on blanks.
pub fn macs(text: &str) -> (Vec<Mac>, Vec<MacReason>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    let mut take = |hex: String| match stripped_mac(hex) {
        Ok(mac) if !seen.insert(mac.clone()) => {}
        Ok(mac) => good.push(mac),
        Err(reason) => bad.push(reason),
    };
    for piece in text.split([',', ';']).map(str::trim).filter(|p| !p.is_empty()) {
        let hex = strip_mac(piece);
        if hex.len() == 12 {
            take(hex);
        } else {
            piece.split_whitespace().map(strip_mac).for_each(&mut take);
        }
    }
    (good, bad)
}

/// One address: canonical, prefix length and zone index dropped, IPv4-mapped IPv6 as IPv4. `None` for what is no claim:
/// unspecified, loopback, multicast, broadcast, link-local, or no address.
pub fn ip(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let text = text.split_once('/').map_or(text, |(ip, _)| ip);
    let text = text.split_once('%').map_or(text, |(ip, _)| ip);
    let ip = text.parse::<IpAddr>().ok()?.to_canonical();
    let claim = match ip {
        IpAddr::V4(v4) => !v4.is_broadcast() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    };
    (claim && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast()).then_some(ip)
}

/// A list of addresses, in order, without repeats.
pub fn ips(text: &str) -> Vec<IpAddr> {
    let (mut out, mut seen) = (Vec::new(), BTreeSet::new());
    for piece in text.split(|c: char| c == ',' || c == ';' || c.is_whitespace()).filter(|p| !p.is_empty()) {
        if let Some(ip) = ip(piece)
            && seen.insert(ip)
        {
            out.push(ip);
        }
    }
    out
}

/// An id: trimmed and not empty.
pub fn id(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty() && !text.contains('\0')).then(|| text.to_owned())
}

/// An agent id: a leading `agent-agent-` is `agent-`, repeatedly; nothing else collapses.
pub fn agent_id(text: &str) -> Option<String> {
    let mut text = text.trim();
    while text.starts_with("agent-agent-") {
        text = &text["agent-".len()..];
    }
    id(text)
}

/// A host name: lower case, trailing dot dropped. An address, or a name whose short form is `localhost`, is none.
pub fn hostname(text: &str) -> Option<String> {
    let name = text.trim().trim_end_matches('.').to_lowercase();
    if name.is_empty() || name.contains('\0') || name.parse::<IpAddr>().is_ok() || short_hostname(&name) == "localhost"
    {
        return None;
    }
    Some(name)
}

/// The host name up to the first dot.
pub fn short_hostname(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// A partition; an empty one is `default`. `None` for a name that no partition may have.
pub fn partition(text: &str) -> Option<String> {
    let text = text.trim();
    match text {
        "" => Some("default".to_owned()),
        text if text.contains([':', '/', '\0']) => None,
        text => Some(text.to_owned()),
    }
}

/// A source instance's name; `None` for one that no instance may have.
pub fn instance(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.contains([':', '/', '\0'])).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_of_every_spelling() {
        for text in ["aa:bb:cc:dd:ee:f0", "AABB.CCDD.EEF0", " aa-bb-cc-dd-ee-f0 ", "aa bb cc dd ee f0"] {
            assert_eq!(macs(text).0[0].hex, "AABBCCDDEEF0", "{text}");
        }
        let (good, bad) = macs("0C:EA:14:32:D2:78, 0EEA1432D278; nonsense 000000000000,ff:ff:ff:ff:ff:ff,01005E000001");
        assert_eq!(
            good.iter().map(|m| (m.hex.as_str(), m.local)).collect::<Vec<_>>(),
            [("0CEA1432D278", false), ("0EEA1432D278", true)]
        );
        use MacReason::*;
        assert_eq!(bad, [Malformed, Zero, Broadcast, Multicast]);
        for virtual_router in
            ["00005E000101", "00005E0002FF", "00000C07AC01", "00000C9FF123", "000573A01234", "0007B4001234"]
        {
            assert_eq!(mac(virtual_router), Err(Virtual), "{virtual_router}");
        }
        assert!(mac("F692BF75C722").unwrap().local && !mac("F492BF75C722").unwrap().local);
    }

    #[test]
    fn addresses() {
        let canonical = |text| ip(text).map(|ip| ip.to_string());
        assert_eq!(canonical("::ffff:10.0.0.1").as_deref(), Some("10.0.0.1"));
        assert_eq!(canonical("2001:DB8:0::1/64").as_deref(), Some("2001:db8::1"));
        for none in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "169.254.1.1", "fe80::1%eth0", "x", ""] {
            assert_eq!(canonical(none), None, "{none}");
        }
        assert_eq!(ips("10.0.0.1/24, 10.0.0.2;10.0.0.1").len(), 2);
    }

    #[test]
    fn names() {
        assert_eq!(agent_id("agent-agent-agent-dusk").as_deref(), Some("agent-dusk"));
        assert_eq!(agent_id("db-db-1").as_deref(), Some("db-db-1"));
        assert_eq!(hostname("Host.Example.COM.").as_deref(), Some("host.example.com"));
        assert_eq!(hostname("localhost.localdomain"), None);
        assert_eq!(hostname("10.0.0.1"), None);
        assert_eq!(partition("").as_deref(), Some("default"));
        assert_eq!(partition("a:b"), None);
    }
}

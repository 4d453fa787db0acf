//! Messages as RFCs and real senders have them.

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

/// The messages of a stream that comes in pieces of so many bytes.
fn framed(stream: &[u8], step: usize) -> Vec<String> {
    let mut framer = Framer::default();
    let mut got: Vec<_> = stream.chunks(step).flat_map(|c| framer.push(c)).collect();
    got.extend(framer.finish());
    got.iter().map(|m| String::from_utf8_lossy(m).into_owned()).collect()
}

#[test]
fn framings_mix_on_one_connection() {
    let stream = b"5 <1>ab<2>line\r\n\n3 <3><4>z\0tail";
    for step in 1..stream.len() {
        assert_eq!(framed(stream, step), ["<1>ab", "<2>line", "<3>", "<4>z", "tail"], "step {step}");
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

/// What a message says: host, program, process, text, whether its time is known, status.
fn told(text: &str) -> [String; 6] {
    let m = p(text);
    let said = |field: Option<String>| field.unwrap_or_else(|| "-".to_owned());
    let time = m.device_us.map(|us| chrono::DateTime::from_timestamp_micros(us).unwrap().to_rfc3339());
    [said(m.hostname), said(m.app), said(m.process), m.body, said(time), m.status.to_owned()]
}

#[test]
fn what_network_devices_send() {
    // 2026-11-26T10:00:00Z is not near receipt: messages say their year, or are about a time near receipt.
    for (text, host, app, process, body, time) in [
        (
            "<166>Nov 26 2026 23:00:00 fw-1 : %ASA-6-302013: Built x",
            "fw-1",
            "ASA-6-302013",
            "-",
            "Built x",
            "2026-11-26T23:00:00+00:00",
        ),
        (
            "<190>1550: rtr-2: Nov 26 2026 23:00:00.712 UTC: %SEC-6-IPACCESSLOGP: x",
            "rtr-2",
            "SEC-6-IPACCESSLOGP",
            "-",
            "x",
            "2026-11-26T23:00:00.712+00:00",
        ),
        (
            "<181>500681: Nov 27 2026 01:00:00.129 CEST: %SESSION_MGR-5-FAIL: x",
            "-",
            "SESSION_MGR-5-FAIL",
            "-",
            "x",
            "2026-11-26T23:00:00.129+00:00",
        ),
        ("<166>Nov 26 2026 10:00:00 EDT: %ASA-5-106100: x", "-", "ASA-5-106100", "-", "x", "2026-11-26T14:00:00+00:00"),
        (
            "<189>36: Jan 1 00:00:00.123 EST: %SYS-5-CONFIG_I: x",
            "-",
            "SYS-5-CONFIG_I",
            "-",
            "x",
            "2024-01-01T05:00:00.123+00:00",
        ),
        (
            "<189>29: gw1: *Jan 1 00:00:00.411: %SYS-5-CONFIG_I: x",
            "gw1",
            "SYS-5-CONFIG_I",
            "-",
            "x",
            "2024-01-01T00:00:00.411+00:00",
        ),
        (
            "<189>29: 192.0.2.1: *Jan 1 00:00:00.411: %SYS-5-CONFIG_I: x",
            "192.0.2.1",
            "SYS-5-CONFIG_I",
            "-",
            "x",
            "2024-01-01T00:00:00.411+00:00",
        ),
        (
            "<189>29: 2001:db8::1: *Jan 1 00:00:00: %SYS-5-CONFIG_I: x",
            "2001:db8::1",
            "SYS-5-CONFIG_I",
            "-",
            "x",
            "2024-01-01T00:00:00+00:00",
        ),
        (
            "<189>91: *Jan 01 00:00:04: gw1 %CRYPTO-4-RECVD: x",
            "gw1",
            "CRYPTO-4-RECVD",
            "-",
            "x",
            "2024-01-01T00:00:04+00:00",
        ),
        (
            "<189>138076: RP/0/RP0/CPU0:Jan 1 00:00:00.1: ifmgr[1]: %PKT_INFRA-LINK-3-UPDOWN : x",
            "-",
            "ifmgr",
            "1",
            "x",
            "2024-01-01T00:00:00.100+00:00",
        ),
        ("<189>12: : %SYS-5-CONFIG_I: x", "-", "SYS-5-CONFIG_I", "-", "x", "-"),
        ("<189>12: 00:00:46: %LINK-3-UPDOWN: x", "-", "LINK-3-UPDOWN", "-", "x", "-"),
        ("<189>12: 1d02h: %LINK-3-UPDOWN: x", "-", "LINK-3-UPDOWN", "-", "x", "-"),
        (
            "<187>: 2026 Nov 26 10:00:00 CET: %VSHD-5-VSHD_SYSLOG: x",
            "-",
            "VSHD-5-VSHD_SYSLOG",
            "-",
            "x",
            "2026-11-26T09:00:00+00:00",
        ),
        (
            "<187>Jan 1 00:00:00 n7k %SYSMGR-STANDBY-3-X: x",
            "n7k",
            "SYSMGR-STANDBY-3-X",
            "-",
            "x",
            "2024-01-01T00:00:00+00:00",
        ),
        (
            "<181> Jan 1 00:00:00 ise-1 CISE_Failed_Attempts[7]: x 1 0",
            "ise-1",
            "CISE_Failed_Attempts",
            "7",
            "x 1 0",
            "2024-01-01T00:00:00+00:00",
        ),
        ("<190>Jan 1 00:00:00 2024 gw1 app: msg", "gw1", "app", "-", "msg", "2024-01-01T00:00:00+00:00"),
        ("<190>JAN 1 00:00:00 gw1 app: msg", "gw1", "app", "-", "msg", "2024-01-01T00:00:00+00:00"),
        ("<15>openvpn[2499]: x", "-", "openvpn", "2499", "x", "-"),
        (
            "<13>Jan 1 00:00:00 h myapp started with 3 workers",
            "h",
            "myapp",
            "-",
            "started with 3 workers",
            "2024-01-01T00:00:00+00:00",
        ),
        (
            "<13>Jan 1 00:00:00 h last message repeated 3 times",
            "h",
            "-",
            "-",
            "last message repeated 3 times",
            "2024-01-01T00:00:00+00:00",
        ),
        (
            "<38>Jan 1 00:00:00 Message forwarded from aix1: sshd[1]: x",
            "aix1",
            "sshd",
            "1",
            "x",
            "2024-01-01T00:00:00+00:00",
        ),
        ("<38>2026-11-26T10:00:00 h a[1]: x", "h", "a", "1", "x", "2026-11-26T10:00:00+00:00"),
        ("<38>2026-11-26 10:00:00 h a[1]: x", "h", "a", "1", "x", "2026-11-26T10:00:00+00:00"),
        (
            "<190>Jan 1 2024 00:00:00 sw1 %%01IFNET/4/IF_STATE(l)[1]:Interface x is up.",
            "sw1",
            "IFNET",
            "-",
            "Interface x is up.",
            "2024-01-01T00:00:00+00:00",
        ),
    ] {
        let told = told(text);
        assert_eq!(told, [host, app, process, body, time, "rfc3164"], "{text}");
    }
    let m = p("<189>138076: RP/0/RP0/CPU0:Jan 1 00:00:00.1: ifmgr[1]: %PKT_INFRA-LINK-3-UPDOWN : x");
    assert_eq!(m.message_id.as_deref(), Some("PKT_INFRA-LINK-3-UPDOWN"));
    let of = |name: &str| m.attributes[name].as_str();
    assert_eq!(
        (of("sequence"), of("cisco.node"), of("cisco.facility"), of("cisco.mnemonic")),
        ("138076", "RP/0/RP0/CPU0", "PKT_INFRA-LINK", "UPDOWN")
    );
    // A text that quotes a mnemonic is a text.
    assert_eq!(p("<13>Jan 1 00:00:00 h app: I saw the words %SYS-5-X: here").app.as_deref(), Some("app"));
}

#[test]
fn structured_data_as_it_is_sent() {
    assert_eq!(
        told("<14>1 2013-01-19T15:18:17.040 srx1 RT_FLOW - - - x"),
        ["srx1", "RT_FLOW", "-", "x", "2013-01-19T15:18:17.040+00:00", "rfc5424"]
    );
    let m = p(r#"<14>1 - h a - - [origin ip="192.0.2.1" ip="192.0.2.129" ip="192.0.2.130"][two@2] x"#);
    let of = |name: &str| m.attributes[name].as_str();
    assert_eq!(
        (of("origin.ip"), of("origin.ip.2"), of("origin.ip.3"), of("two@2")),
        ("192.0.2.1", "192.0.2.129", "192.0.2.130", "")
    );
    for (data, name, value, body) in [
        ("[Originator@6876 sub=x user=root] text", "Originator@6876.user", "root", "text"),
        (r#"[action:"Update"; flags:"1"; time:"1 2"] text"#, "time", "1 2", "text"),
        (r#"[a b="1" c] text"#, "a.b", "1", "text"),
        ("[a b=", "", "", "[a b="),
        ("text that is no data", "", "", "text that is no data"),
    ] {
        let line = format!("<14>1 2024-01-01T00:00:00Z h app 1 ID {data}");
        let m = p(&line);
        assert_eq!(
            (m.hostname.as_deref(), m.app.as_deref(), m.process.as_deref(), m.message_id.as_deref()),
            (Some("h"), Some("app"), Some("1"), Some("ID")),
            "{line}"
        );
        assert_eq!((m.device_us.is_some(), m.status, m.keep_raw), (true, "invalid_structured_data", true), "{line}");
        assert_eq!((m.attributes.get(name).map_or("", String::as_str), m.body.as_str()), (value, body), "{line}");
    }
}

#[test]
fn formats_within_a_message() {
    let line = r#"<189>date=2026-11-26 time=23:36:02 devname="Branch 12 FW" devid="EX01" eventtime=1790000000000000000 tz="+0100" logid="0000000013" srcip=192.0.2.41 dstip=198.51.100.41 url="/case?a=1 srcip=203.0.113.9" msg="policy \"web out\" matched""#;
    let m = p(line);
    assert_eq!(
        (m.status, m.hostname.as_deref(), m.message_id.as_deref()),
        ("key_value", Some("Branch 12 FW"), Some("0000000013"))
    );
    assert_eq!(m.body, line["<189>".len()..]);
    let of = |name: &str| m.attributes[name].as_str();
    assert_eq!((of("srcip"), of("dstip"), of("msg")), ("192.0.2.41", "198.51.100.41", r#"policy "web out" matched"#));
    assert_eq!(m.device_us, Some(1_795_732_562_000_000), "its own zone");

    let m = p(
        r"<134>Jan 1 00:00:00 sensor-1 CEF:0|Example|Th\|reat|1.0|100|worm stopped|10|src=192.0.2.1 msg=a b\=c\nd dst=192.0.2.2",
    );
    assert_eq!(
        (m.status, m.hostname.as_deref(), m.app.as_deref(), m.message_id.as_deref()),
        ("rfc3164", Some("sensor-1"), Some("Th|reat"), Some("100"))
    );
    let of = |name: &str| m.attributes[name].as_str();
    assert_eq!(
        (of("src"), of("msg"), of("dst"), of("cef.name")),
        ("192.0.2.1", "a b=c\nd", "192.0.2.2", "worm stopped")
    );
    assert!(m.body.starts_with("CEF:0|"));
    assert_eq!(p("<134>CEF:0|A|B|1|2|n|3|dvchost=fw-1").hostname.as_deref(), Some("fw-1"));

    for line in [
        "<13>Jan 1 00:00:00 h LEEF:1.0|V|P|1|login|src=192.0.2.1\tusrName=a b",
        "<13>Jan 1 00:00:00 h LEEF:2.0|V|P|1|login|x7C|src=192.0.2.1|usrName=a b",
        "<13>LEEF:2.0|V|P|1|login|^|src=192.0.2.1^usrName=a b",
    ] {
        let m = p(line);
        assert_eq!((m.attributes["src"].as_str(), m.attributes["usrName"].as_str()), ("192.0.2.1", "a b"), "{line}");
        assert_eq!((m.app.as_deref(), m.message_id.as_deref()), (Some("P"), Some("login")), "{line}");
    }
    // What is not all pairs is a text.
    assert!(p("<13>Jan 1 00:00:00 h kernel: IN=eth0 OUT= SRC=192.0.2.1 SYN URGP=0").attributes.is_empty());
}

#[test]
fn a_wrong_count_costs_no_more_than_its_frame() {
    let long = format!("60 <13>a{}", "8 <13>next".repeat(12));
    let short = "5 <13>abcd8 <13>next8 <13>last";
    for (stream, messages) in [
        // The sender counts characters.
        ("5 <13>é8 <13>next8 <13>last8 <11>err!", vec!["<13>é", "<13>next", "<13>last", "<11>err!"]),
        ("6 <13>éé8 <13>next", vec!["<13>éé", "<13>next"]),
        ("6 <13>éé", vec!["<13>éé"]),
        // It counts octets.
        ("6 <13>é8 <13>next8 <13>éé", vec!["<13>é", "<13>next", "<13>éé"]),
        (&long, [&["<13>a"][..], &["<13>next"; 12]].concat()),
        (short, vec!["<13>a", "bcd", "<13>next", "<13>last"]),
        // A count in a text is a text.
        ("26 <13>the words 5 <13>ab cd", vec!["<13>the words 5 <13>ab cd"]),
        ("90 <13>cut", vec!["<13>cut"]),
    ] {
        for step in 1..stream.len() {
            assert_eq!(framed(stream.as_bytes(), step), messages, "{stream} in steps of {step}");
        }
    }
    // What waits for what follows goes when nothing does.
    let mut framer = Framer::default();
    assert!(framer.push("6 <13>é".as_bytes()).is_empty() && framer.waits());
    assert_eq!(framer.pause(), ["<13>é".as_bytes()]);
    assert!(!framer.waits() && framer.finish().is_empty());
}

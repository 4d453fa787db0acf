//! What a configuration leaves open, to whom, and what closes it: `radarflow check-config --hardening`. None of it is a mistake; all
//! of it is somebody's decision, who should know it.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use reqwest::Url;

use super::mistakes::{Mistake, Places};
use super::schema::Config;

/// Files of the data directory that nobody else may read.
const SECRETS: [&str; 2] = ["secret.key", "sealing.keys"];

struct Found<'a> {
    places: &'a Places,
    open: Vec<Mistake>,
}

impl Found<'_> {
    /// A key by which something is open.
    fn add(&mut self, key: &str, open: impl Into<String>, close: &str) {
        let shown = key.split('.').filter(|part| part.parse::<usize>().is_err()).collect::<Vec<_>>().join(".");
        let said = format!("`{shown}`: {}. To close it: {close}", open.into());
        self.open.push(Mistake { at: self.places.at(key), said });
    }

    /// A server that is reached without TLS, where it is on another host.
    fn plaintext(&mut self, key: &str, url: &str, what: &str) {
        let Ok(url) = Url::parse(url) else { return };
        if url.scheme() == "http" && !is_here(url.host_str()) {
            let open = format!("{what} goes to {} unencrypted: who is between reads and changes it", url.authority());
            self.add(key, open, "https://");
        }
    }
}

fn is_public(addr: SocketAddr) -> bool {
    !addr.ip().is_loopback()
}

/// Whether a host is this one.
fn is_here(host: Option<&str>) -> bool {
    let Some(host) = host else { return true };
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || host.starts_with('/') || ip.is_ok_and(|ip| ip.is_loopback())
}

impl Config {
    /// What it leaves open, each with its place.
    pub(crate) fn open(&self, places: &Places) -> Vec<Mistake> {
        let mut found = Found { places, open: Vec::new() };
        self.open_datagrams(&mut found);
        self.open_listeners(&mut found);
        self.open_outwards(&mut found);
        if self.private_addresses {
            let open = "whoever may state receivers, identity providers or integrations has this server ask addresses that only it \
                        reaches";
            found.add("private_addresses", open, "leave it out, and name what is in the data centre in this file");
        }
        found.open.sort();
        found.open
    }

    /// Feeds whose senders nothing proves.
    fn open_datagrams(&self, found: &mut Found<'_>) {
        let feeds = [
            ("netflow", &self.netflow, "flows as any exporter", ""),
            ("sflow", &self.sflow, "samples as any exporter", ""),
            ("syslog", &self.syslog, "messages as any host", ", or take logs by [[syslog_tls]]"),
            ("traps", &self.traps, "notifications of SNMPv1 and v2c as any device", ", or let devices speak SNMPv3"),
        ];
        for (name, sockets, what, or) in feeds {
            for (n, socket) in sockets.iter().enumerate().filter(|(_, socket)| is_public(socket.addr)) {
                let open = format!("whoever reaches {} can send {what}, and who is between reads them", socket.addr);
                found.add(&format!("{name}.{n}.addr"), open, &format!("let only senders reach it (a firewall){or}"));
            }
        }
    }

    /// Listeners that know who speaks, or could.
    fn open_listeners(&self, found: &mut Found<'_>) {
        for (n, socket) in self.syslog_tls.iter().enumerate() {
            if is_public(socket.addr) && socket.tls.client_ca.is_none() {
                let open = format!("whoever reaches {} can send messages as any host", socket.addr);
                found.add(&format!("syslog_tls.{n}.tls"), open, "client_ca, by which senders are known");
            }
        }
        for (n, otlp) in self.otlp.iter().enumerate().filter(|(_, otlp)| is_public(otlp.addr)) {
            let key = format!("otlp.{n}.addr");
            match &otlp.tls {
                None => {
                    let open = format!("whoever reaches {} can send telemetry, and who is between reads it", otlp.addr);
                    found.add(&key, open, "[otlp.tls] with client_ca");
                }
                Some(tls) if tls.client_ca.is_none() => {
                    let open = format!("whoever reaches {} can send telemetry", otlp.addr);
                    found.add(&key, open, "client_ca in [otlp.tls], by which senders are known");
                }
                Some(_) => {}
            }
        }
        for (n, gateway) in self.grpc.iter().enumerate() {
            let key = format!("grpc.{n}.addr");
            if gateway.is_open() {
                let open = format!("every process of this host can be any agent, at {}", gateway.addr);
                found.add(
                    &key,
                    open,
                    "names, and agents that are enrolled; or nothing, where all of this host are trusted",
                );
            } else if gateway.tls.is_some() {
                let open = "a certificate of client_ca lets its agent in until it ends: none can be revoked";
                found.add(&format!("grpc.{n}.tls"), open, "names in place of [grpc.tls], and agents that are enrolled");
            }
        }
        if is_public(self.http.addr) {
            if self.http.tls.is_none() {
                let open = format!("tokens, passwords and answers of {} can be read on their way", self.http.addr);
                found.add("http.addr", open, "[http.tls], or an address of loopback behind a proxy that encrypts");
            }
            let open = format!("/metrics, /healthz and /readyz of {} answer without a token", self.http.addr);
            found.add("http.addr", open, "a proxy that lets only the monitoring ask them");
        }
        if let Some(postgres) = &self.postgres
            && is_public(postgres.addr)
            && postgres.plaintext
        {
            let open = format!("tokens of clients of {} can be read on their way", postgres.addr);
            found.add("postgres.plaintext", open, "leave it out, and configure [postgres.tls]");
        }
    }

    /// What goes to other hosts and can be read on its way.
    fn open_outwards(&self, found: &mut Found<'_>) {
        for (n, netbox) in self.sources.netbox.iter().enumerate() {
            found.plaintext(&format!("sources.netbox.{n}.url"), netbox.url.as_str(), "the token of NetBox");
        }
        for (n, armis) in self.sources.armis.iter().enumerate() {
            found.plaintext(&format!("sources.armis.{n}.url"), armis.url.as_str(), "the secret of Armis");
        }
        for (n, receiver) in self.receivers.iter().enumerate() {
            found.plaintext(&format!("receivers.{n}.url"), &receiver.url, "what is told of alerts");
        }
        for (n, nats) in self.sources.nats.iter().enumerate() {
            let url = Url::parse(&nats.url).ok();
            if url.is_some_and(|url| url.scheme() != "tls" && url.scheme() != "wss" && !is_here(url.host_str())) {
                let open = "messages of NATS may come unencrypted, where its server does not ask for TLS";
                found.add(&format!("sources.nats.{n}.url"), open, "tls://");
            }
        }
        for (n, kafka) in self.sources.kafka.iter().enumerate() {
            let protocol = kafka.properties.get("security.protocol").map(|protocol| protocol.to_lowercase());
            let is_secure = protocol.is_some_and(|protocol| matches!(protocol.as_str(), "ssl" | "sasl_ssl"));
            let host = |broker: &str| broker.trim().rsplit_once(':').map_or(broker.trim(), |(host, _)| host).to_owned();
            if !is_secure && !kafka.brokers.split(',').all(|broker| is_here(Some(&host(broker)))) {
                let open = "messages of Kafka come unencrypted: who is between reads and changes them";
                let close = "properties: security.protocol = \"ssl\" or \"sasl_ssl\"";
                found.add(&format!("sources.kafka.{n}.brokers"), open, close);
            }
        }
        if let Some(postgres) = &self.sinks.postgres
            && let Ok(url) = Url::parse(&postgres.url)
            && !is_here(url.host_str())
        {
            let mode = url.query_pairs().find(|(name, _)| matches!(&**name, "sslmode" | "ssl-mode"));
            let close = "sslmode=verify-full in its URL";
            match mode.as_ref().map(|(_, mode)| &**mode) {
                Some("verify-full") => {}
                Some("require" | "verify-ca") => {
                    found.add("sinks.postgres.url", "another server can pass for the database", close);
                }
                _ => found.add("sinks.postgres.url", "the connection to the database may be unencrypted", close),
            }
        }
    }
}

/// What of the host is open: the file of the configuration, the data directory, and who the program is.
pub(crate) fn on_disk(file: Option<&Path>, data_dir: &Path, is_root: bool) -> Vec<String> {
    let mut open = Vec::new();
    let others = |path: &Path| {
        let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
        (mode & 0o077 != 0).then_some(mode)
    };
    if let Some((file, mode)) = file.and_then(|file| Some((file, others(file)?))) {
        let file = file.display();
        open.push(format!(
            "{file} has mode {mode:03o}: others read its secrets. To close it: chmod 600, or env: and file: in place of secrets"
        ));
    }
    for name in SECRETS {
        let path = data_dir.join(name);
        if let Some(mode) = others(&path) {
            open.push(format!(
                "{} has mode {mode:03o}: it is the key to every secret. To close it: chmod 600",
                path.display()
            ));
        }
    }
    if let Some(mode) = others(data_dir) {
        let dir = data_dir.display();
        open.push(format!(
            "{dir} has mode {mode:03o}: others read the ledger and the lake in it. To close it: chmod 700"
        ));
    }
    if is_root {
        open.push(
            "this is root: who breaks the program has the host. To close it: a user of its own, as the package's unit has".to_owned(),
        );
    }
    open
}

#[cfg(test)]
mod tests {
    use super::super::load::{Read, parse_for_test};
    use super::*;

    fn open(text: &str) -> Vec<String> {
        let Read { config, mistakes, places } = parse_for_test(text);
        assert!(mistakes.is_empty(), "{mistakes:?}");
        config.open(&places).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_defaults_leave_open_what_is_on_this_host() {
        let open = open("");
        assert_eq!(open.len(), 1, "{open:?}");
        assert!(open[0].contains("`grpc.addr`: every process of this host can be any agent"), "{open:?}");
    }

    #[test]
    fn what_is_open_is_told_with_its_place_and_what_closes_it() {
        let files = "certificate = \"c\"\nkey = \"k\"\n";
        let with_ca = format!("{files}client_ca = \"a\"\n");
        for (text, place, said) in [
            ("[[netflow]]\naddr = \"0.0.0.0:2055\"", "line 2, column 8: `netflow.addr`", "as any exporter"),
            ("[[sflow]]\naddr = \"0.0.0.0:6343\"", "line 2, column 8: `sflow.addr`", "firewall"),
            ("[[syslog]]\naddr = \"[::]:514\"", "line 2, column 8: `syslog.addr`", "[[syslog_tls]]"),
            ("[[traps]]\naddr = \"0.0.0.0:162\"", "line 2, column 8: `traps.addr`", "SNMPv3"),
            (
                &format!("[[syslog_tls]]\naddr = \"0.0.0.0:6514\"\n[syslog_tls.tls]\n{files}"),
                "`syslog_tls.tls`",
                "client_ca",
            ),
            ("[[otlp]]\naddr = \"0.0.0.0:4317\"", "`otlp.addr`", "who is between reads it"),
            (&format!("[[otlp]]\naddr = \"0.0.0.0:4317\"\n[otlp.tls]\n{files}"), "`otlp.addr`", "client_ca"),
            (&format!("[[grpc]]\naddr = \"0.0.0.0:1\"\n[grpc.tls]\n{with_ca}"), "`grpc.tls`", "none can be revoked"),
            ("[http]\naddr = \"0.0.0.0:80\"", "line 2, column 8: `http.addr`", "[http.tls]"),
            (
                "[postgres]\naddr = \"0.0.0.0:1\"\nplaintext = true",
                "line 3, column 13: `postgres.plaintext`",
                "[postgres.tls]",
            ),
            ("private_addresses = true", "line 1, column 21: `private_addresses`", "that only it reaches"),
            (
                "[[sources.netbox]]\nname = \"n\"\nurl = \"http://netbox.test\"\ntoken = \"hush\"",
                "`sources.netbox.url`",
                "https://",
            ),
            (
                "[[sources.armis]]\nname = \"a\"\nurl = \"http://armis.test\"\nsecret_key = \"hush\"",
                "`sources.armis.url`",
                "https://",
            ),
            ("[[receivers]]\nname = \"a\"\nurl = \"http://hook.test/x\"", "`receivers.url`", "hook.test"),
            ("[[sources.nats]]\nurl = \"nats://broker.test\"\nstream = \"s\"", "`sources.nats.url`", "tls://"),
            ("[[sources.kafka]]\nbrokers = \"127.0.0.1:1,broker.test:9092\"", "`sources.kafka.brokers`", "sasl_ssl"),
            ("[sinks.postgres]\nurl = \"postgres://db.test/x\"", "`sinks.postgres.url`", "unencrypted"),
            ("[sinks.postgres]\nurl = \"postgres://db.test/x?sslmode=require\"", "`sinks.postgres.url`", "pass for"),
        ] {
            let open = open(text);
            let found = open.iter().any(|open| open.contains(place) && open.contains(said));
            assert!(found, "{text}\n{open:#?}");
            assert!(!format!("{open:?}").contains("hush"), "{open:#?}");
        }
        let closed = [
            "[[receivers]]\nname = \"a\"\nurl = \"http://127.0.0.1:9/x\"".to_owned(),
            "[[sources.nats]]\nurl = \"tls://broker.test\"\nstream = \"s\"".to_owned(),
            "[[sources.kafka]]\nbrokers = \"b.test:1\"\nproperties = { \"security.protocol\" = \"SASL_SSL\" }"
                .to_owned(),
            "[sinks.postgres]\nurl = \"postgres://db.test/x?sslmode=verify-full\"".to_owned(),
            format!("[[otlp]]\naddr = \"0.0.0.0:4317\"\n[otlp.tls]\n{with_ca}"),
        ];
        for text in &closed {
            assert_eq!(open(text).len(), 1, "{text}\n{:#?}", open(text));
        }
        assert!(open("[[grpc]]\naddr = \"0.0.0.0:1\"\nnames = [\"radar.test\"]").is_empty());
    }

    #[test]
    fn what_others_read_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (file, key) = (dir.path().join("radarflow.toml"), dir.path().join("secret.key"));
        let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        std::fs::write(&file, "").unwrap();
        std::fs::write(&key, "").unwrap();
        for (path, bits) in [(&*file, 0o640), (&*key, 0o604), (dir.path(), 0o755)] {
            mode(path, bits);
        }
        let open = on_disk(Some(&file), dir.path(), true);
        assert_eq!(open.len(), 4, "{open:?}");
        assert!(open[0].contains("mode 640") && open[1].contains("secret.key has mode 604"), "{open:?}");
        for (path, bits) in [(&*file, 0o600), (&*key, 0o600), (dir.path(), 0o700)] {
            mode(path, bits);
        }
        assert!(on_disk(Some(&file), dir.path(), false).is_empty());
    }
}

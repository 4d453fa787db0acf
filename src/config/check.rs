//! What is wrong with a configuration beyond what is said of each key: what `serve` would refuse, and what would start and
//! never work. Nothing is opened but files; what answers over the network is asked by [`super::super::check`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use radarflow_connectors::mail::Mailer;
use radarflow_connectors::sources::tls::{Files, Tls};
use radarflow_proto::snmp::usm::MAX_USERS;
use radarflow_reconcile::identity::normalise;
use reqwest::Url;
use rustls::pki_types::ServerName;

use super::mistakes::{At, Mistake, Places};
use super::schema::{Config, Grpc};
use crate::memory::Budget;

/// Mistakes, and what is allowed but hardly meant.
#[derive(Default)]
pub(crate) struct Judged {
    pub(crate) mistakes: Vec<Mistake>,
    pub(crate) doubts: Vec<Mistake>,
}

struct Judge<'a> {
    places: &'a Places,
    judged: Judged,
}

impl Judge<'_> {
    fn wrong(&mut self, key: &str, said: impl Into<String>) {
        let mistake = Mistake { at: self.places.at(key), said: format!("`{}`: {}", shown(key), said.into()) };
        self.judged.mistakes.push(mistake);
    }

    fn doubt(&mut self, key: &str, said: impl Into<String>) {
        let doubt = Mistake { at: self.places.at(key), said: format!("`{}`: {}", shown(key), said.into()) };
        self.judged.doubts.push(doubt);
    }
}

/// A key as people write it: lists are not counted.
fn shown(key: &str) -> String {
    key.split('.').filter(|part| part.parse::<usize>().is_err()).collect::<Vec<_>>().join(".")
}

/// A socket that something listens on.
struct Listener {
    key: String,
    addr: SocketAddr,
    protocols: &'static [&'static str],
}

impl Config {
    /// What is wrong with it.
    pub(crate) fn judge(&self, places: &Places) -> Judged {
        let mut judge = Judge { places, judged: Judged::default() };
        self.judge_listeners(&mut judge);
        self.judge_encryption(&mut judge);
        self.judge_names(&mut judge);
        self.judge_times(&mut judge);
        self.judge_receivers(&mut judge);
        self.judge_snmp_users(&mut judge);
        self.judge_folders(&mut judge);
        if self.workers == 0 {
            judge.wrong("workers", "0 workers do nothing; 1 is the least");
        }
        if let Err(error) = Budget::new(self.memory_limit_mib) {
            judge.wrong("memory_limit_mib", format!("{error:#}"));
        }
        if let Some(mail) = &self.mail
            && let Err(error) = Mailer::new(&mail.smtp, &mail.from)
        {
            judge.wrong("mail", error.to_string());
        }
        if self.agent.enabled && !self.grpc.iter().any(Grpc::is_open) {
            judge.wrong("agent.enabled", "it needs a [[grpc]] listener without certificates, which is on loopback");
        }
        judge.judged
    }

    fn listeners(&self) -> Vec<Listener> {
        const BOTH: &[&str] = &["tcp", "udp"];
        let mut all = Vec::new();
        let mut add = |key: String, addr, protocols| all.push(Listener { key, addr, protocols });
        add("http.addr".to_owned(), self.http.addr, &["tcp"]);
        if let Some(postgres) = &self.postgres {
            add("postgres.addr".to_owned(), postgres.addr, &["tcp"]);
        }
        for (n, gateway) in self.grpc.iter().enumerate() {
            add(format!("grpc.{n}.addr"), gateway.addr, &["tcp"]);
        }
        for (name, sockets, protocols) in [
            ("netflow", &self.netflow, BOTH),
            ("sflow", &self.sflow, &["udp"]),
            ("syslog", &self.syslog, BOTH),
            ("traps", &self.traps, &["udp"]),
        ] {
            for (n, socket) in sockets.iter().enumerate() {
                add(format!("{name}.{n}.addr"), socket.addr, protocols);
            }
        }
        for (n, socket) in self.syslog_tls.iter().enumerate() {
            add(format!("syslog_tls.{n}.addr"), socket.addr, &["tcp"]);
        }
        for (n, otlp) in self.otlp.iter().enumerate() {
            add(format!("otlp.{n}.addr"), otlp.addr, &["tcp"]);
        }
        all
    }

    fn judge_listeners(&self, judge: &mut Judge<'_>) {
        let all = self.listeners();
        for (n, one) in all.iter().enumerate() {
            let clash = |other: &&Listener| {
                let (a, b) = (one.addr, other.addr);
                let address = a.ip() == b.ip()
                    || (a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified()));
                a.port() != 0
                    && a.port() == b.port()
                    && address
                    && one.protocols.iter().any(|p| other.protocols.contains(p))
            };
            if let Some(other) = all[..n].iter().find(clash) {
                // Told where somebody wrote it.
                let written = judge.places.at(&one.key) != At::Nowhere || judge.places.at(&other.key) == At::Nowhere;
                let (one, other) = if written { (one, other) } else { (other, one) };
                judge.wrong(&one.key, format!("{} is also where [{}] listens", one.addr, section(&other.key)));
            }
        }
    }

    fn judge_encryption(&self, judge: &mut Judge<'_>) {
        let files = self.http.tls.iter().map(|tls| ("http.tls".to_owned(), tls));
        let postgres = self.postgres.iter().filter_map(|p| p.tls.as_ref()).map(|tls| ("postgres.tls".to_owned(), tls));
        let grpc = self.grpc.iter().enumerate().filter_map(|(n, g)| Some((format!("grpc.{n}.tls"), g.tls.as_ref()?)));
        let syslog = self.syslog_tls.iter().enumerate().map(|(n, s)| (format!("syslog_tls.{n}.tls"), &s.tls));
        let otlp = self.otlp.iter().enumerate().filter_map(|(n, o)| Some((format!("otlp.{n}.tls"), o.tls.as_ref()?)));
        for (key, files) in files.chain(postgres).chain(grpc).chain(syslog).chain(otlp) {
            let Files { certificate, key: private, client_ca } = files;
            let unread =
                [("certificate", Some(certificate)), ("key", Some(private)), ("client_ca", client_ca.as_ref())];
            let unread: Vec<(&str, String)> = unread
                .into_iter()
                .filter_map(|(name, path)| Some((name, path?)))
                .filter_map(|(name, path)| Some((name, format!("{}: {}", path.display(), std::fs::read(path).err()?))))
                .collect();
            for (name, said) in &unread {
                judge.wrong(&format!("{key}.{name}"), said.as_str());
            }
            if unread.is_empty()
                && let Err(error) = Tls::read(files.clone(), &[])
            {
                judge.wrong(&key, error.to_string());
            }
        }
        let public = |addr: SocketAddr| !addr.ip().is_loopback();
        for (n, gateway) in self.grpc.iter().enumerate() {
            if public(gateway.addr) && gateway.is_open() {
                let said = format!(
                    "{} is reached from other hosts: it needs names for enrolled agents, [grpc.tls], or an address of loopback",
                    gateway.addr
                );
                judge.wrong(&format!("grpc.{n}.addr"), said);
            }
            if gateway.tls.is_some() && !gateway.names.is_empty() {
                let said =
                    "it is for enrolled agents, whose authority is the tenant's own: take [grpc.tls] away, or names";
                judge.wrong(&format!("grpc.{n}.names"), said);
            }
            let odd = |name: &&String| ServerName::try_from(name.as_str()).is_err();
            if let Some(odd) = gateway.names.iter().find(odd) {
                judge.wrong(&format!("grpc.{n}.names"), format!("{odd:?} is no name of a host and no address"));
            }
        }
        if let Some(postgres) = self.postgres.as_ref().filter(|p| public(p.addr) && p.tls.is_none() && !p.plaintext) {
            let said = "clients on other hosts are refused without [postgres.tls]; or plaintext = true behind a proxy that encrypts";
            judge.wrong("postgres.addr", format!("{}: {said}", postgres.addr));
        }
        if public(self.http.addr) && self.http.tls.is_none() {
            let said = "tokens can be read on their way; configure [http.tls], or let a proxy encrypt";
            judge.doubt("http.addr", format!("{}: {said}", self.http.addr));
        }
    }

    /// Tenants and partitions that can be.
    fn judge_names(&self, judge: &mut Judge<'_>) {
        let mut named: Vec<(String, &str, &str)> = Vec::new();
        let sockets =
            [("netflow", &self.netflow), ("sflow", &self.sflow), ("syslog", &self.syslog), ("traps", &self.traps)];
        for (name, sockets) in sockets {
            named.extend(
                sockets
                    .iter()
                    .enumerate()
                    .map(|(n, s)| (format!("{name}.{n}"), s.tenant.as_str(), s.partition.as_str())),
            );
        }
        for (n, s) in self.syslog_tls.iter().enumerate() {
            named.push((format!("syslog_tls.{n}"), &s.tenant, &s.partition));
        }
        for (n, o) in self.otlp.iter().enumerate() {
            named.push((format!("otlp.{n}"), &o.tenant, &o.partition));
        }
        // An agent says its own where the listener says none.
        for (n, g) in self.grpc.iter().enumerate() {
            let partition = if g.partition.is_empty() { "default" } else { &g.partition };
            named.push((format!("grpc.{n}"), &g.tenant, partition));
        }
        for (n, s) in self.sources.nats.iter().enumerate() {
            named.push((format!("sources.nats.{n}"), &s.tenant, &s.partition));
        }
        for (n, s) in self.sources.kafka.iter().enumerate() {
            named.push((format!("sources.kafka.{n}"), &s.tenant, &s.partition));
        }
        for (n, s) in self.sources.netbox.iter().enumerate() {
            named.push((format!("sources.netbox.{n}"), &s.tenant, &s.partition));
        }
        for (n, s) in self.sources.armis.iter().enumerate() {
            named.push((format!("sources.armis.{n}"), &s.tenant, &s.partition));
        }
        for (n, receiver) in self.receivers.iter().enumerate() {
            named.push((format!("receivers.{n}"), &receiver.tenant, "default"));
        }
        for (n, partial) in self.sources.partial.iter().enumerate() {
            named.push((format!("sources.partial.{n}"), &partial.tenant, "default"));
        }
        for (key, tenant, partition) in named {
            if tenant.trim().is_empty() {
                judge.wrong(&format!("{key}.tenant"), "a tenant has a name");
            }
            if partition.trim().is_empty() || normalise::partition(partition).is_none() {
                judge.wrong(&format!("{key}.partition"), "a partition has a name, without : and /");
            }
        }
    }

    /// Of one name in one tenant, the second would take the place of the first.
    pub(super) fn duplicates(&self, places: &Places) -> Vec<Mistake> {
        let mut judge = Judge { places, judged: Judged::default() };
        let netbox = self
            .sources
            .netbox
            .iter()
            .enumerate()
            .map(|(n, s)| (format!("sources.netbox.{n}"), "netbox", &s.tenant, &s.name));
        let armis = self
            .sources
            .armis
            .iter()
            .enumerate()
            .map(|(n, s)| (format!("sources.armis.{n}"), "armis", &s.tenant, &s.name));
        let receivers =
            self.receivers.iter().enumerate().map(|(n, r)| (format!("receivers.{n}"), "receivers", &r.tenant, &r.name));
        let mut known = BTreeMap::new();
        for (key, what, tenant, name) in netbox.chain(armis).chain(receivers) {
            if known.insert((what, tenant, name), ()).is_some() {
                judge.wrong(
                    &format!("{key}.name"),
                    format!("two [[{}]] of tenant {tenant} are called {name:?}", section(&key)),
                );
            }
        }
        judge.judged.mistakes
    }

    fn judge_snmp_users(&self, judge: &mut Judge<'_>) {
        let mut known = BTreeSet::new();
        for (n, user) in self.snmp_users.iter().enumerate() {
            let key = format!("snmp_users.{n}");
            if let Err(why) = user.user() {
                judge.wrong(&key, why);
            }
            let engine = user.engine.as_ref().map(|engine| engine.to_lowercase());
            if !known.insert((&user.tenant, &user.name, engine)) {
                judge.wrong(&format!("{key}.name"), format!("two users of {} are called {:?}", user.tenant, user.name));
            }
            if self.snmp_users[..n].iter().filter(|other| other.tenant == user.tenant).count() == MAX_USERS {
                judge.wrong(&key, format!("more users of {} than {MAX_USERS}, which are the most", user.tenant));
            }
            if !self.traps.iter().any(|socket| socket.tenant == user.tenant) {
                judge.doubt(&format!("{key}.tenant"), format!("no [[traps]] listener is of tenant {}", user.tenant));
            }
            if user.auth.is_none() {
                judge.doubt(&key, format!("anybody can say what {:?} says, as it does not authenticate", user.name));
            }
        }
    }

    fn judge_times(&self, judge: &mut Judge<'_>) {
        let mut times: Vec<(String, u64)> = Vec::new();
        for (n, s) in self.sources.netbox.iter().enumerate() {
            let of = |field: &str| format!("sources.netbox.{n}.{field}");
            times.extend([
                (of("interval_s"), s.interval_s),
                (of("full_interval_s"), s.full_interval_s),
                (of("page"), s.page as u64),
            ]);
        }
        for (n, s) in self.sources.armis.iter().enumerate() {
            let of = |field: &str| format!("sources.armis.{n}.{field}");
            times.extend([
                (of("interval_s"), s.interval_s),
                (of("write_back_interval_s"), s.write_back_interval_s),
                (of("page"), s.page as u64),
            ]);
        }
        for (key, _) in times.into_iter().filter(|(_, value)| *value == 0) {
            judge.wrong(&key, "0 would never rest; 1 is the least");
        }
        for (n, r) in self.receivers.iter().enumerate() {
            for (field, value, least) in [
                ("group_wait_ms", r.group_wait_ms, 0),
                ("group_interval_ms", r.group_interval_ms, 1),
                ("repeat_interval_ms", r.repeat_interval_ms, 1),
            ] {
                if value < least {
                    judge.wrong(&format!("receivers.{n}.{field}"), format!("{value} is no time; {least} is the least"));
                }
            }
        }
        if self.sinks.lake.vacuum_after_hours == 0 {
            judge.wrong("sinks.lake.vacuum_after_hours", "readers need an hour at least");
        }
    }

    fn judge_receivers(&self, judge: &mut Judge<'_>) {
        for (n, receiver) in self.receivers.iter().enumerate() {
            if receiver.name.trim().is_empty() {
                judge.wrong(&format!("receivers.{n}.name"), "a receiver has a name");
            }
            let key = format!("receivers.{n}.url");
            // Where it names what is found elsewhere, that is read when something is sent.
            if receiver.url.starts_with("env:") || receiver.url.starts_with("file:") {
                continue;
            }
            match Url::parse(&receiver.url) {
                Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {}
                Ok(_) => judge.wrong(&key, "http:// or https:// and a host are expected"),
                Err(error) => judge.wrong(&key, format!("it is no URL: {error}")),
            }
        }
    }

    fn judge_folders(&self, judge: &mut Judge<'_>) {
        if let Some(why) = impossible(&self.data_dir) {
            judge.wrong("data_dir", why);
        }
        if self.sinks.lake.enabled
            && let Some(path) = &self.sinks.lake.path
        {
            if let Some(why) = impossible(path) {
                judge.wrong("sinks.lake.path", why);
            }
            let other = ["ledger", "snapshots"].map(|name| self.data_dir.join(name));
            if path == &self.data_dir || other.iter().any(|other| path.starts_with(other)) {
                judge.wrong(
                    "sinks.lake.path",
                    format!("{} holds other things; give the lake a folder of its own", path.display()),
                );
            }
        }
    }
}

/// The section of a key: `sources.netbox`.
fn section(key: &str) -> String {
    let shown = shown(key);
    match shown.rsplit_once('.') {
        Some((section, "addr" | "name")) => section.to_owned(),
        _ => shown,
    }
}

/// Why a folder cannot be written, or made.
fn impossible(path: &Path) -> Option<String> {
    if path.as_os_str().is_empty() {
        return Some("a folder has a name".to_owned());
    }
    let own = path.to_owned();
    let there = std::iter::successors(Some(own), |path| path.parent().map(Path::to_owned));
    let there = there
        .map(|path| if path.as_os_str().is_empty() { PathBuf::from(".") } else { path })
        .find(|path| path.exists())?;
    if !there.is_dir() {
        return Some(format!("{} is no folder", there.display()));
    }
    let access = nix::unistd::access(&there, nix::unistd::AccessFlags::W_OK | nix::unistd::AccessFlags::X_OK);
    access.err().map(|error| format!("{} cannot be written: {}", there.display(), error.desc()))
}

#[cfg(test)]
mod tests {
    use super::super::load::{Read, parse_for_test};

    /// What is judged of a file: mistakes, then doubts.
    fn judged(text: &str) -> (Vec<String>, Vec<String>) {
        let Read { config, mistakes, places } = parse_for_test(text);
        assert!(mistakes.is_empty(), "{mistakes:?}");
        let judged = config.judge(&places);
        let said = |of: &[super::Mistake]| of.iter().map(ToString::to_string).collect::<Vec<_>>();
        (said(&judged.mistakes), said(&judged.doubts))
    }

    #[test]
    fn the_defaults_and_the_example_are_without_mistakes() {
        assert_eq!(judged(""), (vec![], vec![]));
        assert_eq!(judged(include_str!("../../deploy/radarflow.example.toml")), (vec![], vec![]));
    }

    #[test]
    fn what_serve_would_refuse_or_what_would_never_work_is_told_with_its_place() {
        let cases = [
            ("[http]\naddr = \"127.0.0.1:2055\"", "line 2, column 8: `http.addr`", ""),
            ("[[netflow]]\naddr = \"0.0.0.0:5514\"", "line 2, column 8: `netflow.addr`", "[syslog]"),
            (
                "[[sflow]]\naddr = \"127.0.0.1:1\"\ntenant = \"\"",
                "line 3, column 10: `sflow.tenant`",
                "a tenant has a name",
            ),
            ("[[sflow]]\naddr = \"127.0.0.1:1\"\npartition = \"a/b\"", "line 3, column 13: `sflow.partition`", ""),
            (
                "[http.tls]\ncertificate = \"/none.pem\"\nkey = \"/none.key\"",
                "line 2, column 15: `http.tls.certificate`",
                "/none.pem",
            ),
            ("[[otlp]]\naddr = \"127.0.0.1:8080\"", "line 2, column 8: `otlp.addr`", "[http]"),
            ("[[otlp]]\naddr = \"127.0.0.1:1\"\ntenant = \"\"", "`otlp.tenant`", "a tenant has a name"),
            ("[[grpc]]\naddr = \"0.0.0.0:1\"", "line 2, column 8: `grpc.addr`", "[grpc.tls]"),
            ("[postgres]\naddr = \"0.0.0.0:1\"", "line 2, column 8: `postgres.addr`", "[postgres.tls]"),
            ("[[receivers]]\nname = \"a\"\nurl = \"alertmanager\"", "line 3, column 7: `receivers.url`", "no URL"),
            ("[[receivers]]\nname = \"a\"\nurl = \"ftp://x/\"", "line 3, column 7: `receivers.url`", "https://"),
            ("workers = 0", "line 1, column 11: `workers`", ""),
            ("data_dir = \"/dev/null/x\"", "line 1, column 12: `data_dir`", "/dev/null is no folder"),
            ("data_dir = \"d\"\n[sinks.lake]\npath = \"d/ledger/x\"", "line 3, column 8: `sinks.lake.path`", "its own"),
            ("[mail]\nsmtp = \"http://x\"\nfrom = \"a@b.c\"", "`mail`", "smtp"),
            ("agent = { enabled = true }\ngrpc = []", "line 1, column 21: `agent.enabled`", "[[grpc]]"),
        ];
        for (text, place, said) in cases {
            let (mistakes, _) = judged(text);
            let told = mistakes.iter().any(|m| m.contains(place) && m.contains(said));
            assert!(told, "{mistakes:?} of {text:?} does not say {place:?} {said:?}");
        }
        let Read { mistakes, .. } = parse_for_test(
            "[[receivers]]\nname = \"a\"\nurl = \"http://x\"\n[[receivers]]\nname = \"a\"\nurl = \"http://y\"\n",
        );
        assert!(mistakes.len() == 1 && mistakes[0].to_string().starts_with("line 5, column 8"), "{mistakes:?}");
        let twice = "[[receivers]]\nname = \"a\"\nurl = \"http://x\"\ngroup_interval_ms = 0\n[[receivers]]\nname = \"a\"\ntenant = \"b\"\nurl = \"http://y\"";
        let (mistakes, _) = judged(twice);
        assert!(mistakes.len() == 1 && mistakes[0].contains("`receivers.group_interval_ms`"), "{mistakes:?}");
        let (mistakes, doubts) = judged("[http]\naddr = \"0.0.0.0:8080\"");
        assert!(mistakes.is_empty() && doubts[0].contains("tokens can be read"), "{doubts:?}");
        // Two ports of one number, of protocols that do not meet.
        assert_eq!(judged("[http]\naddr = \"127.0.0.1:6343\"").0, Vec::<String>::new());
    }
}

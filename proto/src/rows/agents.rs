//! Agents, what they are to do, and what they found by looking.

use std::net::IpAddr;

use crate::cell::{Cell, RowId, Time};
use crate::table::rows;

rows! {
    /// What agents look at, to which devices, when.
    State Profile ProfileBatch "profiles" postgres "profiles" key [tenant_id, partition, name] {
        /// Customer.
        tenant_id: String,
        /// Always `default`: a profile is the whole tenant's; `site` says whose devices it is about.
        partition: String,
        /// Its name.
        name: String,
        /// What it is for.
        description: String,
        /// What is done: `ping`, `tcp`, `http`, `dns`, `tls`, or `sweep` (ServiceRadar's agent only).
        kind: String,
        /// Whether it is done at all.
        enabled: bool,
        /// Of profiles of one kind that name the same device the greatest counts; of equal ones the first by name.
        priority: i64,
        /// The partition whose devices and agents it is about; null for all, each for itself.
        site: Option<String>,
        /// What its devices are like, in terms of the query language.
        condition: Option<String>,
        /// The group that its devices are in.
        device_group: Option<String>,
        /// Addresses, names of hosts and networks that are looked at beside devices; they need a `site`.
        hosts: Vec<String>,
        /// Addresses, names, networks and device uids that are left out.
        exclude: Vec<String>,
        /// Seconds from one look at a target to the next. When in the interval, a hash of the target says.
        interval_s: i64,
        /// A cron expression (minute, hour, day of month, month, weekday) that says when all its targets are looked at, in place
        /// of the interval.
        cron: Option<String>,
        /// The time zone of the cron expression, as `Europe/Berlin`.
        time_zone: String,
        /// Time intervals in which nothing is looked at.
        pause_during: Vec<String>,
        /// Who does it: `auto`, one agent a target; `all`, every agent of the partition that can; `listed`, those in `agents`.
        assignment: String,
        /// The agents, where they are listed.
        agents: Vec<String>,
        /// A look ends without an answer after so long, milliseconds.
        timeout_ms: i64,
        /// How often is asked before nobody answers: echoes of a ping, attempts of anything else.
        attempts: i64,
        /// Ports of `tcp`, `tls`, `http` and `sweep`, each a look of its own; the first of `dns`, whose own is 53.
        ports: Vec<String>,
        /// Whether `http` speaks TLS.
        tls: bool,
        /// The path that `http` asks for.
        url_path: String,
        /// Status codes that are right, `200-399,401`.
        expected_status: String,
        /// A regular expression that must be found in the first 64 KiB of the body of `http`.
        body_pattern: Option<String>,
        /// Redirects that `http` follows.
        redirects: i64,
        /// The name that `dns` asks its targets for.
        query_name: Option<String>,
        /// The type of record that `dns` asks for.
        record_type: String,
        /// The set of files it belongs to, if any: nobody else changes it.
        owner: Option<String>,
        /// When it began.
        created_at: Time,
        /// Who began it.
        created_by: String,
        /// When it was last changed.
        updated_at: Time,
        /// Who changed it.
        updated_by: String,
        /// Epoch of this version.
        epoch: i64,
    }

    /// Agents that checked in.
    State Agent AgentBatch "agents" postgres "ocsf_agents" key [tenant_id, partition, agent_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// The agent's id.
        agent_id: String,
        /// `connected` or `disconnected`.
        state: String,
        /// Since when.
        since: Time,
        /// Newest heartbeat: hello, control hello or any push.
        last_seen: Time,
        /// Version it runs.
        version: Option<String>,
        /// Host name it reports.
        hostname: Option<String>,
        /// Operating system it reports.
        os: Option<String>,
        /// Architecture it reports.
        arch: Option<String>,
        /// What it can do.
        capabilities: Vec<String>,
        /// Epoch of this version.
        epoch: i64,
    }

    /// Authorities that sign the certificates of a tenant's agents and of the gateways that these connect to. The program makes
    /// them; their keys are not shown.
    State CertificateAuthority CertificateAuthorityBatch "certificate_authorities" postgres "certificate_authorities"
        key [tenant_id, partition, authority_id] {
        /// Customer.
        tenant_id: String,
        /// Always `default`: an authority is the whole tenant's.
        partition: String,
        /// Names it.
        authority_id: String,
        /// Its certificate, PEM.
        certificate: String,
        /// SHA-256 of its certificate as DER, hexadecimal.
        fingerprint: String,
        /// Until when what it signed is believed.
        not_after: Time,
        /// When it was made.
        created_at: Time,
        /// Who made it.
        created_by: String,
        /// Epoch of this version.
        epoch: i64,
    }

    /// Agents that are enrolled or are to be: what each is called, where it belongs, and which certificates let it in.
    State EdgePackage EdgePackageBatch "edge_packages" postgres "edge_packages" key [tenant_id, partition, package_id] {
        /// Customer.
        tenant_id: String,
        /// Always `default`: a package is the whole tenant's; `site` says where its agent belongs.
        partition: String,
        /// Names it; not a secret.
        package_id: String,
        /// What it is for.
        name: String,
        /// What its agent is called.
        agent_id: String,
        /// The partition of the agent and of what it finds.
        site: String,
        /// Where the agent connects, `host:port`, as it is told when it is enrolled; null for what the configuration says.
        gateway: Option<String>,
        /// What people say of it.
        notes: Option<String>,
        /// `created`; `downloaded`: its certificate was handed out; `installed`: its agent has connected; `revoked`: nothing
        /// lets it in any more.
        status: String,
        /// When it goes by itself: one that nobody downloaded after a day, one that was revoked after 90. Null of others.
        expires_at: Option<Time>,
        /// When its certificate was handed out.
        downloaded_at: Option<Time>,
        /// The address that it was handed to.
        downloaded_by: Option<String>,
        /// When its agent first connected.
        installed_at: Option<Time>,
        /// When it was revoked.
        revoked_at: Option<Time>,
        /// Who revoked it.
        revoked_by: Option<String>,
        /// Why.
        revoked_because: Option<String>,
        /// Serial number of its certificate, hexadecimal.
        serial: Option<String>,
        /// SHA-256 of the certificate that lets its agent in, as DER, hexadecimal.
        fingerprint: Option<String>,
        /// That of the one that was shown when it was renewed, which lets it in as well.
        previous_fingerprint: Option<String>,
        /// When its certificate ends.
        certificate_expires_at: Option<Time>,
        /// The set of files it belongs to, if any: nobody else changes it.
        owner: Option<String>,
        /// When it began.
        created_at: Time,
        /// Who began it.
        created_by: String,
        /// When it was last changed.
        updated_at: Time,
        /// Who changed it.
        updated_by: String,
        /// Epoch of this version.
        epoch: i64,
    }

    /// What agents have to do now: a row a profile, partition and agent, and how it goes.
    State Job JobBatch "jobs" postgres "jobs" key [tenant_id, partition, profile, agent_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// The profile.
        profile: String,
        /// The agent; empty where there is none who could.
        agent_id: String,
        /// `due`: no result yet; `done`; `failed`: the agent could not look; `missed`: no result in an interval and its grace;
        /// `unsupported`: the agent cannot do it.
        state: String,
        /// Why, where that is not as it should be.
        reason: Option<String>,
        /// Since when it is in that state.
        since: Time,
        /// Targets that it has, or of which it can do nothing.
        targets: i64,
        /// Seconds from one look to the next, where an interval says it.
        interval_s: i64,
        /// The cron expression and its zone, where these say it.
        cron: Option<String>,
        /// When the newest result was found.
        last_result_at: Option<Time>,
        /// Results since it began.
        results: i64,
        /// Those among them that found nobody.
        negative: i64,
        /// Those among them that say nothing, because the agent could not look.
        unknown: i64,
        /// Epoch of this version.
        epoch: i64,
    }

    /// What somebody had agents do at once, and how it went: a row a run and agent. What is over for a day, and the oldest of more
    /// than 2000, are in the history alone.
    State Command CommandBatch "commands" postgres "commands" key [tenant_id, partition, command_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// Names it, to the agent too.
        command_id: String,
        /// The run it is a part of: what one request had done.
        run_id: String,
        /// The profile.
        profile: String,
        /// The agent; empty where there is none who could.
        agent_id: String,
        /// What the agent is told: `radarflow.run`, `sweep.run_group`.
        command_type: String,
        /// `queued`: it waits for the agent; `sent`; `acknowledged`; `running`; and once, for good: `finished`, `failed`, `expired` or
        /// `cancelled`.
        state: String,
        /// Why, where it is over and not finished; else what the agent said last.
        reason: Option<String>,
        /// Targets that the agent has of the profile, as far as they were asked for.
        targets: i64,
        /// The targets that were asked for; empty for all.
        asked: Vec<String>,
        /// How much is done, percent, as the agent says.
        progress: i64,
        /// What came of it, as the agent says: JSON, at most 4 KiB.
        result: Option<String>,
        /// Who asked.
        requested_by: String,
        /// When.
        requested_at: Time,
        /// Until when it must be acknowledged; after that, until when its result must come.
        expires_at: Time,
        /// When it was given to the agent's connection: decided, and on disk, before it left.
        sent_at: Option<Time>,
        /// When the agent said that it has it.
        acknowledged_at: Option<Time>,
        /// When it was over.
        finished_at: Option<Time>,
        /// Epoch of this version.
        epoch: i64,
    }

    /// What agents found when they looked: a row a look.
    Event Probe ProbeBatch "probes" postgres "" key [row_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// Unique, kept by compaction.
        row_id: RowId,
        /// Epoch at which the row was emitted.
        epoch: i64,
        /// When the look ended, by the agent's clock, but not later than receipt.
        time: Time,
        /// Receipt.
        received_at: Time,
        /// The agent that looked.
        agent_id: String,
        /// The profile it looked for.
        profile: String,
        /// What it did: `ping`, `tcp`, `http`, `dns`, `tls`.
        kind: String,
        /// What it was told to look at.
        target: String,
        /// The address that it looked at.
        ip: Option<IpAddr>,
        /// The port.
        port: Option<i64>,
        /// Whether it is as it should be; null where the agent could not look.
        is_ok: Option<bool>,
        /// Until the answer, microseconds.
        latency_us: Option<i64>,
        /// Echoes or attempts.
        sent: i64,
        /// Those that nobody answered.
        lost: i64,
        /// The status code of `http`, the response code of `dns`.
        status_code: Option<i64>,
        /// Days until the certificate ends.
        certificate_days: Option<i64>,
        /// What was wrong, or why the agent could not look.
        error: Option<String>,
        /// Device that owned the address, by what was known at `epoch`.
        device_uid: Option<String>,
    }
}

//! Where inputs come from, what is read out of them, and what was refused.

use crate::cell::{Cell, RowId, Time};
use crate::table::rows;

rows! {
    /// Rules that read fields out of log messages: of those that match a message the first counts.
    State ParsingRule ParsingRuleBatch "parsing_rules" postgres "parsing_rules" key [tenant_id, partition, name] {
        /// Customer.
        tenant_id: String,
        /// Always `default`: they are the whole tenant's.
        partition: String,
        /// Its name.
        name: String,
        /// Whether it counts.
        enabled: bool,
        /// The first counts: by this, then by name.
        position: i64,
        /// Programs (`service_name`) whose messages it is about, `app*` by the beginning of the name; empty for all.
        programs: Vec<String>,
        /// Addresses and networks of senders that it is about; empty for all.
        senders: Vec<String>,
        /// A regular expression with named groups, each an attribute: `(?P<user>\S+)`, or `%{NOTSPACE:user}`.
        pattern: String,
        /// The severity of what matches: a word, or `{group}`; null for what it is.
        severity: Option<String>,
        /// The message of what matches, with `{group}`; null for what it is.
        body: Option<String>,
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

    /// Inventories that are asked: Armis, NetBox.
    State Integration IntegrationBatch "integrations" postgres "integrations" key [tenant_id, partition, name] {
        /// Customer.
        tenant_id: String,
        /// Always `default`: they are the whole tenant's.
        partition: String,
        /// Its name: the source instance of its records.
        name: String,
        /// `armis` or `netbox`.
        inventory: String,
        /// Where its API begins.
        endpoint: String,
        /// Whether it is asked by itself; otherwise only when somebody asks for a plan.
        enabled: bool,
        /// The partition of its devices.
        into_partition: String,
        /// Seconds between two runs.
        interval_s: i64,
        /// Seconds between two runs of everything, where it can tell what changed: a NetBox.
        full_interval_s: i64,
        /// Items of a page.
        page_size: i64,
        /// Searches of an Armis, in its query language; empty for every device.
        queries: Vec<String>,
        /// Partitions by the VRF of the primary address, for a NetBox: `VRF=PARTITION`.
        vrfs: Vec<String>,
        /// Whether interfaces of a NetBox are asked for their MACs.
        interfaces: bool,
        /// Networks whose addresses are left out; what has no other is left out itself.
        leave_out: Vec<String>,
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

    /// Feeds and exporters, each with a loss ledger that balances: received = stored + rejected + shed.
    State Source SourceBatch "sources" postgres "sources" key [tenant_id, partition, source, exporter] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// The feed: `netflow:127.0.0.1:2055`, `syslog:…`, `grpc:…`.
        source: String,
        /// The sender's address; empty for the feed as a whole.
        exporter: String,
        /// Inputs taken in: datagrams, lines, messages, statuses.
        received: i64,
        /// Inputs that became rows, records or state.
        stored: i64,
        /// Inputs that could not be used; see `rejects`.
        rejected: i64,
        /// Inputs given up under pressure before the ledger.
        shed: i64,
        /// Units lost before us, where the protocol tells: sequence gaps and kernel drops.
        lost: i64,
        /// Rows made.
        rows: i64,
        /// Sets waiting for their template now.
        waiting_sets: i64,
        /// What it waits for, in words.
        waiting: Option<String>,
        /// Receipt of its newest input.
        last_seen: Time,
        /// `learning` until it was heard for an hour, `active`, or `silent`: quiet beyond its own rhythm. Null of what speaks when
        /// it has a reason to: traps, agents, inventories.
        state: Option<String>,
        /// How long it may be quiet, seconds: three times its second longest daily pause of two weeks, at least five minutes.
        patience_s: Option<i64>,
        /// Epoch of this version.
        epoch: i64,
    }

    /// Input that could not be used: nothing is dropped silently.
    Event Reject RejectBatch "rejects" postgres "" key [row_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// Unique, kept by compaction.
        row_id: RowId,
        /// Epoch at which the row was emitted.
        epoch: i64,
        /// Receipt.
        time: Time,
        /// The feed.
        source: String,
        /// Who sent it.
        peer: Option<String>,
        /// Why it could not be used.
        reason: String,
        /// The bytes, secrets removed, at most 4 KiB of them.
        bytes: Vec<u8>,
        /// How many bytes there were.
        bytes_total: i64,
    }
}

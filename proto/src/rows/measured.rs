//! What agents measure and report.

use std::net::IpAddr;

use crate::cell::{Cell, Real, RowId, Tags, Time};
use crate::table::rows;

rows! {
    /// How busy the cores of agents' hosts are: a row a core and sample. Shaped as ServiceRadar's `cpu_metrics`.
    Event CpuMetric CpuMetricBatch "cpu_metrics" postgres "" key [row_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// Unique, kept by compaction.
        row_id: RowId,
        /// Epoch at which the row was emitted.
        epoch: i64,
        /// When it was measured, by the agent's clock, but not later than receipt.
        time: Time,
        /// Receipt.
        received_at: Time,
        /// The agent that says it.
        agent_id: String,
        /// The gateway it says it through.
        gateway_id: Option<String>,
        /// What the host calls itself.
        host_id: Option<String>,
        /// The host's address.
        host_ip: Option<IpAddr>,
        /// The core; null of a whole cluster.
        core_id: Option<i64>,
        /// What the core is called.
        label: Option<String>,
        /// The cluster of cores it is of, where the host has some of different kinds.
        cluster: Option<String>,
        /// How busy it is, percent.
        usage_percent: Option<Real>,
        /// Its clock, hertz.
        frequency_hz: Option<Real>,
        /// Device that owned the address, by what was known at `epoch`.
        device_uid: Option<String>,
    }

    /// Memory of agents' hosts: a row a sample. Shaped as ServiceRadar's `memory_metrics`.
    Event MemoryMetric MemoryMetricBatch "memory_metrics" postgres "" key [row_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// Unique, kept by compaction.
        row_id: RowId,
        /// Epoch at which the row was emitted.
        epoch: i64,
        /// When it was measured, by the agent's clock, but not later than receipt.
        time: Time,
        /// Receipt.
        received_at: Time,
        /// The agent that says it.
        agent_id: String,
        /// The gateway it says it through.
        gateway_id: Option<String>,
        /// What the host calls itself.
        host_id: Option<String>,
        /// The host's address.
        host_ip: Option<IpAddr>,
        /// Bytes there are.
        total_bytes: i64,
        /// Bytes in use.
        used_bytes: i64,
        /// Bytes that are not.
        available_bytes: i64,
        /// In use, percent.
        usage_percent: Option<Real>,
        /// Bytes of swap there are; null where the host says none.
        swap_total_bytes: Option<i64>,
        /// Bytes of swap in use.
        swap_used_bytes: Option<i64>,
        /// Device that owned the address, by what was known at `epoch`.
        device_uid: Option<String>,
    }

    /// Disks of agents' hosts: a row a mount point and sample. Shaped as ServiceRadar's `disk_metrics`.
    Event DiskMetric DiskMetricBatch "disk_metrics" postgres "" key [row_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// Unique, kept by compaction.
        row_id: RowId,
        /// Epoch at which the row was emitted.
        epoch: i64,
        /// When it was measured, by the agent's clock, but not later than receipt.
        time: Time,
        /// Receipt.
        received_at: Time,
        /// The agent that says it.
        agent_id: String,
        /// The gateway it says it through.
        gateway_id: Option<String>,
        /// What the host calls itself.
        host_id: Option<String>,
        /// The host's address.
        host_ip: Option<IpAddr>,
        /// Where it is mounted.
        mount_point: String,
        /// What is mounted there.
        device_name: Option<String>,
        /// Bytes there are.
        total_bytes: i64,
        /// Bytes in use.
        used_bytes: i64,
        /// Bytes that are not.
        available_bytes: i64,
        /// In use, percent.
        usage_percent: Option<Real>,
        /// Device that owned the address, by what was known at `epoch`.
        device_uid: Option<String>,
    }

    /// Processes of agents' hosts: a row a process and sample. Shaped as ServiceRadar's `process_metrics`.
    Event ProcessMetric ProcessMetricBatch "process_metrics" postgres "" key [row_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// Unique, kept by compaction.
        row_id: RowId,
        /// Epoch at which the row was emitted.
        epoch: i64,
        /// When it was measured, by the agent's clock, but not later than receipt.
        time: Time,
        /// Receipt.
        received_at: Time,
        /// The agent that says it.
        agent_id: String,
        /// The gateway it says it through.
        gateway_id: Option<String>,
        /// What the host calls itself.
        host_id: Option<String>,
        /// The host's address.
        host_ip: Option<IpAddr>,
        /// Its number.
        pid: i64,
        /// Its name.
        name: String,
        /// Time of processors that it takes, percent of one.
        cpu_usage: Option<Real>,
        /// Memory that it takes, bytes.
        memory_usage: Option<i64>,
        /// `running`, `sleep`, `idle`, …
        status: Option<String>,
        /// When it began.
        start_time: Option<Time>,
        /// Device that owned the address, by what was known at `epoch`.
        device_uid: Option<String>,
    }

    /// Numbers that agents read elsewhere: a row a sample. Shaped as ServiceRadar's `timeseries_metrics`; `snmp_metrics` are
    /// those of type `snmp`. What counts up has its rate beside it, made of two samples.
    Event TimeseriesMetric TimeseriesMetricBatch "timeseries_metrics" postgres "" key [row_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// Unique, kept by compaction.
        row_id: RowId,
        /// Epoch at which the row was emitted.
        epoch: i64,
        /// When it was read, by the agent's clock, but not later than receipt.
        time: Time,
        /// Receipt.
        received_at: Time,
        /// The agent that says it.
        agent_id: String,
        /// The gateway it says it through.
        gateway_id: Option<String>,
        /// `snmp`; `sysmon`, of interfaces of an agent's host; `plugin`.
        metric_type: String,
        /// What is read: of SNMP as the configuration calls it, `ifHCInOctets`; of hosts `bytes_recv` and the like.
        metric_name: String,
        /// What it is read of, as the configuration calls it.
        target: Option<String>,
        /// The address of that.
        target_device_ip: Option<IpAddr>,
        /// The object that is read, with a leading dot.
        oid: Option<String>,
        /// The interface, by its index (`ifIndex`).
        if_index: Option<i64>,
        /// The interface, as the configuration or the host calls it.
        interface_uid: Option<String>,
        /// What was read, times `scale`.
        value: Real,
        /// What it counts.
        unit: Option<String>,
        /// As the configuration says: `counter`, `gauge`, …
        data_type: Option<String>,
        /// What it was multiplied by.
        scale: Option<Real>,
        /// Of what counts up: by how much a second since the sample before, times `scale`.
        rate_per_second: Option<Real>,
        /// Seconds between these two samples.
        interval_seconds: Option<Real>,
        /// Why there is no rate: `first` sample; `late`, with none before it; `gap` of more than an hour; `reset` of the counter;
        /// `ambiguous`, as it may have wrapped several times; `conflict` with another value of the same instant; `delta`, a
        /// rate of the agent's own; `full`, as too many counters are followed.
        rate_missing: Option<String>,
        /// The speed of the interface, bits per second, where it is known.
        if_speed_bps: Option<i64>,
        /// Of bytes of an interface of known speed: the rate, percent of the speed.
        utilization_percent: Option<Real>,
        /// What else is said of it.
        tags: Tags,
        /// Device that owned the address, by what was known at `epoch`.
        device_uid: Option<String>,
    }

    /// What answers on the way to a target: a row a trace. Its hops are `mtr_hops`.
    Event MtrTrace MtrTraceBatch "mtr_traces" postgres "" key [row_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// Unique, kept by compaction.
        row_id: RowId,
        /// Epoch at which the row was emitted.
        epoch: i64,
        /// When the trace ended, by the agent's clock, but not later than receipt.
        time: Time,
        /// Receipt.
        received_at: Time,
        /// The agent that says it.
        agent_id: String,
        /// The gateway it says it through.
        gateway_id: Option<String>,
        /// Names the trace.
        trace_id: String,
        /// The check it was made for.
        check_id: Option<String>,
        /// What that is called.
        check_name: Option<String>,
        /// What was traced, as the configuration says.
        target: String,
        /// The address that was traced.
        target_ip: Option<IpAddr>,
        /// Whether the target answered; null where the agent could not look.
        target_reached: Option<bool>,
        /// How far it went.
        total_hops: Option<i64>,
        /// `icmp`, `udp` or `tcp`.
        protocol: Option<String>,
        /// 4 or 6.
        ip_version: Option<i64>,
        /// Bytes of its packets.
        packet_size: Option<i64>,
        /// Who answered, in order.
        path: Vec<String>,
        /// Packets to the last hop that nobody answered, percent.
        loss_percent: Option<Real>,
        /// Until the answer of the last hop, on average, microseconds.
        avg_us: Option<i64>,
        /// Why the agent could not look.
        error: Option<String>,
        /// Device that owned the address, by what was known at `epoch`.
        device_uid: Option<String>,
    }

    /// Hops of traces: a row a hop.
    Event MtrHop MtrHopBatch "mtr_hops" postgres "" key [row_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// Unique, kept by compaction.
        row_id: RowId,
        /// Epoch at which the row was emitted.
        epoch: i64,
        /// When the trace ended, by the agent's clock, but not later than receipt.
        time: Time,
        /// Receipt.
        received_at: Time,
        /// The agent that says it.
        agent_id: String,
        /// The gateway it says it through.
        gateway_id: Option<String>,
        /// The trace, as `mtr_traces` names it.
        trace_id: String,
        /// What was traced, as the configuration says.
        target: String,
        /// Its place on the way, from 1.
        hop_number: i64,
        /// Who answered; null where nobody did.
        hop_ip: Option<IpAddr>,
        /// Its name.
        hostname: Option<String>,
        /// All who answered at this place.
        ecmp_addrs: Vec<String>,
        /// Its autonomous system.
        asn: Option<i64>,
        /// Whose that is.
        asn_org: Option<String>,
        /// MPLS labels, the top first.
        mpls_labels: Vec<String>,
        /// Packets that were sent.
        sent: i64,
        /// Those that were answered.
        received: i64,
        /// Those that were not, percent.
        loss_percent: Option<Real>,
        /// Until the last answer, microseconds.
        last_us: Option<i64>,
        /// Until the answers, on average, microseconds.
        avg_us: Option<i64>,
        /// Until the quickest, microseconds.
        min_us: Option<i64>,
        /// Until the slowest, microseconds.
        max_us: Option<i64>,
        /// Their standard deviation, microseconds.
        stddev_us: Option<i64>,
        /// How much one differed from the one before, microseconds.
        jitter_us: Option<i64>,
        /// Device that owned the address that answered, by what was known at `epoch`.
        device_uid: Option<String>,
    }

    /// What plugins of agents found: a row a result. Its numbers are `timeseries_metrics` of type `plugin`.
    Event PluginResult PluginResultBatch "plugin_results" postgres "" key [row_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// Unique, kept by compaction.
        row_id: RowId,
        /// Epoch at which the row was emitted.
        epoch: i64,
        /// When it was found, by the agent's clock, but not later than receipt.
        time: Time,
        /// Receipt.
        received_at: Time,
        /// The agent that says it.
        agent_id: String,
        /// The gateway it says it through.
        gateway_id: Option<String>,
        /// The service that the plugin is run as.
        service_name: String,
        /// The plugin.
        plugin_id: Option<String>,
        /// `OK`, `WARNING`, `CRITICAL` or `UNKNOWN`.
        status: String,
        /// In words.
        summary: String,
        /// What else the result is marked with.
        labels: Tags,
        /// What it is shown as, JSON.
        widgets: Option<String>,
        /// All that it says, JSON; null where that is more than 64 KiB.
        details: Option<String>,
    }
}

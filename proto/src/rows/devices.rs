//! What identity makes of records: devices, their identifiers, addresses, interfaces and neighbours.

use crate::cell::{Cell, RowId, Tags, Time};
use crate::table::rows;

rows! {
    /// One row per device, as identity defines it now. Named and shaped as ServiceRadar's `ocsf_devices`.
    State Device DeviceBatch "devices" postgres "ocsf_devices" key [tenant_id, partition, uid] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// `sr:<uuid>`, derived from the device's best identifier.
        uid: String,
        /// Host name, else name, else address, else uid.
        display_name: String,
        /// Host name, lower case, as the source of greatest confidence says.
        hostname: Option<String>,
        /// Name as the inventory gives it.
        name: Option<String>,
        /// The owned address that the newest record puts first.
        ip: Option<String>,
        /// Every owned address.
        ip_addresses: Vec<String>,
        /// The asserted MAC of greatest confidence, twelve upper-case hex digits.
        mac: Option<String>,
        /// Every MAC asserted for it.
        mac_addresses: Vec<String>,
        /// Device type as the sources say (`router`, `server`, …).
        r#type: Option<String>,
        /// Manufacturer.
        vendor_name: Option<String>,
        /// Model.
        model: Option<String>,
        /// Operating system.
        os: Option<String>,
        /// The agent that runs on it.
        agent_id: Option<String>,
        /// The gateway its agent speaks to.
        gateway_id: Option<String>,
        /// Kinds of sources that know it.
        discovery_sources: Vec<String>,
        /// Available as its vantages say: true, false, or null for unknown.
        is_available: Option<bool>,
        /// `available`, `unavailable`, `unknown`, or `insufficient_data`: there are results, and too few to say.
        availability: String,
        /// Since when `availability` holds.
        availability_since: Option<Time>,
        /// The probe that decided.
        availability_reason: Option<String>,
        /// Smallest event time of its records.
        first_seen_time: Time,
        /// Greatest event time of its records.
        last_seen_time: Time,
        /// `discovered` (no strong identifier or MAC yet), `identified`, `managed` or `decommissioned`.
        lifecycle: String,
        /// When it was deleted; null while it is shown. Deleted devices are left out unless a query asks for them.
        deleted_at: Option<Time>,
        /// Who deleted it.
        deleted_by: Option<String>,
        /// Why.
        deleted_reason: Option<String>,
        /// What the records say beside the columns.
        metadata: Tags,
        /// Which rule set which column: `type`, `vendor_name`, `model` or `os` to its `rule_id`; `oui` where the MAC told
        /// the vendor.
        enriched_by: Tags,
        /// Epoch of this version.
        epoch: i64,
    }

    /// One row per strong identifier or global MAC that a live record asserts.
    State DeviceIdentifier DeviceIdentifierBatch "identities" postgres "device_identifiers"
        key [tenant_id, partition, identifier_type, source_instance, identifier_value] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// `agent`, `armis`, `integration`, `netbox` or `mac`.
        identifier_type: String,
        /// The source instance the value is counted in; empty for agents.
        source_instance: String,
        /// The value.
        identifier_value: String,
        /// `held`, `ambiguous` or `contested`.
        state: String,
        /// The device holding it; null unless held.
        device_uid: Option<String>,
        /// Smallest event time at which it was asserted since it was last gone for one retention.
        first_seen: Option<Time>,
        /// Epoch of this version.
        epoch: i64,
    }

    /// Older names of devices, one hop each.
    State DeviceRedirect DeviceRedirectBatch "device_redirects" postgres "device_redirects"
        key [tenant_id, partition, from_uid] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// The older name.
        from_uid: String,
        /// The device it leads to.
        to_uid: String,
        /// The identifier that bears the older name, as `type:value`.
        identifier: String,
        /// Epoch of this version.
        epoch: i64,
    }

    /// Who owns an address now.
    State IpOwnership IpOwnershipBatch "ip_ownership" postgres "ip_ownership" key [tenant_id, partition, ip] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// The address, canonical text.
        ip: String,
        /// The owner; null where more than sixteen devices claim it.
        device_uid: Option<String>,
        /// What decided: `operator`, `agent`, `inventory`, `stale_agent` (no check-in for a day), `mapper`, `alias`, `sweep`,
        /// or `shared`.
        class: String,
        /// Event time of the winning claim.
        valid_from: Time,
        /// End of the interval; null while it holds.
        valid_to: Option<Time>,
        /// The name the address alone bears; it leads to the owner.
        ip_uid: String,
        /// Epoch of this version.
        epoch: i64,
    }

    /// What operators say of identifiers: that two name one device, or two.
    State Link LinkBatch "links" postgres "device_links" key [tenant_id, partition, link_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// Its id.
        link_id: String,
        /// `must`: one device; `cannot`: two.
        kind: String,
        /// One end, as `type:value`, or `type@instance:value`.
        a: String,
        /// The other.
        b: String,
        /// Who said it.
        actor: String,
        /// Why.
        reason: String,
        /// Epoch of this version.
        epoch: i64,
    }

    /// Names that devices had in a system that was replaced, and the identifiers they had there. Such a name leads to the
    /// device that holds the first of them that anything holds.
    State ImportedUid ImportedUidBatch "imported_uids" postgres "imported_uids" key [tenant_id, partition, uid] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// The name it had.
        uid: String,
        /// Its identifiers there, as `type:value`, in order of priority.
        identifiers: Vec<String>,
        /// Epoch of this version.
        epoch: i64,
    }

    /// Groups of devices that operators named: `group:NAME` on devices, `device.group:NAME` elsewhere.
    State DeviceGroup DeviceGroupBatch "device_groups" postgres "device_groups" key [tenant_id, partition, name] {
        /// Customer.
        tenant_id: String,
        /// Always `default`: a group is the whole tenant's.
        partition: String,
        /// Its name.
        name: String,
        /// What its devices are like, in terms of the query language; null where they are listed.
        condition: Option<String>,
        /// The devices listed, by uid.
        members: Vec<String>,
        /// What it is for.
        description: String,
        /// Who said it.
        actor: String,
        /// Why.
        reason: String,
        /// The set of files it belongs to, if any: nobody else changes it.
        owner: Option<String>,
        /// Epoch of this version.
        epoch: i64,
    }

    /// Which devices stand behind which: one behind others that are all down is not told of, they are.
    State Dependency DependencyBatch "dependencies" postgres "dependencies" key [tenant_id, partition, name] {
        /// Customer.
        tenant_id: String,
        /// Always `default`: a dependency is the whole tenant's; `site` says whose devices it is about.
        partition: String,
        /// Its name.
        name: String,
        /// What it is for.
        description: String,
        /// The partition whose devices it is about; null for all, each for itself.
        site: Option<String>,
        /// What the devices are like that others stand behind, in terms of the query language; 16 of a partition count.
        parent: String,
        /// What the devices are like that stand behind them.
        children: String,
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

    /// Each time a record moved from one device to another: merges, splits, and devices called otherwise.
    Event MergeAudit MergeAuditBatch "merge_audit" postgres "merge_audit" key [tenant_id, row_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// Unique, kept by compaction.
        row_id: RowId,
        /// Epoch at which the row was emitted.
        epoch: i64,
        /// When.
        time: Time,
        /// The record, as `kind/instance/key`.
        record: String,
        /// The device it was in.
        from_uid: String,
        /// The device it is in.
        to_uid: String,
        /// What put it there: `strong_identifier`, `mac`, `ip_alias`, `cross_source`, `operator`, or `retraction` where
        /// what had held it elsewhere is gone.
        reason: String,
        /// What the record says of itself that identity reads.
        witnesses: Vec<String>,
        /// The device it is in.
        device_uid: Option<String>,
    }

    /// A neighbour that a polled device reports, as LLDP, CDP and their like tell it. It says nothing of identity.
    State TopologyLink TopologyLinkBatch "topology_links" postgres "topology_links"
        key [tenant_id, partition, local_ip, local_if_index, protocol, neighbor_chassis_id, neighbor_port_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// Where the reporting device is polled.
        local_ip: String,
        /// Its interface.
        local_if_index: i64,
        /// The name of its interface.
        local_if_name: Option<String>,
        /// Who told: `lldp`, `cdp`, …
        protocol: String,
        /// What the neighbour calls itself.
        neighbor_chassis_id: String,
        /// What the neighbour calls its port.
        neighbor_port_id: String,
        /// What its port is.
        neighbor_port_descr: Option<String>,
        /// Its name.
        neighbor_system_name: Option<String>,
        /// Its MAC, twelve upper-case hex digits, where its chassis id is one.
        neighbor_mac: Option<String>,
        /// Where it is managed, canonical text.
        neighbor_ip: Option<String>,
        /// The first poll, of those in a row that are remembered, that reported it.
        first_seen: Time,
        /// The last.
        last_seen: Time,
        /// The reporting device: the owner of its address.
        device_uid: Option<String>,
        /// The neighbour: the owner of its address.
        neighbor_device_uid: Option<String>,
        /// Epoch of this version.
        epoch: i64,
    }

    /// Who had an address, learnt after events of it were stored. Of an event that an epoch before `epoch` stored, about
    /// this address and not before `valid_from`, this is the device; of several that say so the one of greatest `epoch`
    /// is right. Queries have them laid over what is stored.
    Event AttributionCorrection AttributionCorrectionBatch "attribution_corrections" postgres "" key [row_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// Unique, kept by compaction.
        row_id: RowId,
        /// Epoch that knew it first: what later epochs stored is right.
        epoch: i64,
        /// When it was learnt.
        time: Time,
        /// The address, canonical text.
        ip: String,
        /// Since when the device had the address.
        valid_from: Time,
        /// Nothing stored before is dated later: a day after it was learnt.
        valid_to: Time,
        /// The device; null where the address was nobody's.
        device_uid: Option<String>,
    }

    /// Interfaces of devices, as discovery last found them. Shaped as ServiceRadar's `discovered_interfaces`.
    State Interface InterfaceBatch "interfaces" postgres "discovered_interfaces"
        key [tenant_id, partition, device_ip, if_index] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// Where the device was asked.
        device_ip: String,
        /// The interface, by its index (`ifIndex`).
        if_index: i64,
        /// The same as a name: `ifindex:3`.
        interface_uid: String,
        /// The agent that asked.
        agent_id: String,
        /// Its name (`ifName`).
        if_name: Option<String>,
        /// What it is (`ifDescr`).
        if_descr: Option<String>,
        /// What people call it (`ifAlias`).
        if_alias: Option<String>,
        /// Speed, bits per second.
        if_speed_bps: Option<i64>,
        /// Kind of interface, by IANA's number (`ifType`).
        if_type: Option<i64>,
        /// Its MAC, twelve upper-case hex digits.
        if_mac: Option<String>,
        /// Its addresses.
        ip_addresses: Vec<String>,
        /// What it is meant to be (`ifAdminStatus`): 1 up, 2 down, 3 testing.
        if_admin_status: Option<i64>,
        /// What it is (`ifOperStatus`): 1 up, 2 down, and so on.
        if_oper_status: Option<i64>,
        /// What can be measured of it, JSON.
        available_metrics: Option<String>,
        /// What else discovery says.
        metadata: Tags,
        /// When it was first found, of the time that it is remembered.
        first_seen: Time,
        /// When it was last found.
        last_seen: Time,
        /// The device: the owner of the address.
        device_uid: Option<String>,
        /// Epoch of this version.
        epoch: i64,
    }
}

//! A flow, straight into the columns of a batch of `flows`: no row in between.
//!
//! Every column is named once, so that none can be forgotten: what is taken apart and not used does not compile without a
//! warning.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::tables::Enriched;
use super::{Flow, SamplingSource, names};
use crate::cell::{Cell, IpBytes, Optional, RowId, Time};
use crate::rows::FlowBatch;

/// Where a row comes from and what it is called.
#[derive(Clone, Debug)]
pub struct FlowContext<'a> {
    /// Customer.
    pub tenant: &'a str,
    /// Site.
    pub partition: &'a str,
    /// Its name.
    pub row_id: RowId,
    /// Epoch of emission.
    pub epoch: i64,
    /// Receipt.
    pub received: Time,
    /// The exporter.
    pub sampler: IpAddr,
    /// Protocol that brought it.
    pub flow_type: &'static str,
}

/// Exporters' clocks may be off by this much before their times are taken for nonsense, microseconds: a day.
const ABSURD_US: u64 = 86_400_000_000;

/// What is worth a note.
const CLAMPED: &str = "time clamped to receipt";
const LEFT_OUT: &str = "unknown elements left out";

impl FlowBatch {
    /// Appends a flow. Times further than a day from receipt are clamped to it and noted; a rate nobody told leaves the
    /// counts as they are and says so.
    pub fn push_flow(&mut self, flow: &Flow, enriched: &Enriched<'_>, cx: &FlowContext<'_>) {
        let FlowBatch {
            len,
            tenant_id,
            partition,
            row_id,
            epoch,
            time,
            start_time,
            received_at,
            src_endpoint_ip,
            src_endpoint_ip_bin,
            src_endpoint_port,
            src_mac,
            src_prefix_length,
            src_nat_ip,
            src_nat_port,
            src_user_name,
            src_net_name,
            src_net_role,
            src_net_site,
            src_net_region,
            src_net_tenant,
            src_country,
            src_city,
            dst_endpoint_ip,
            dst_endpoint_ip_bin,
            dst_endpoint_port,
            dst_mac,
            dst_prefix_length,
            dst_nat_ip,
            dst_nat_port,
            dst_user_name,
            dst_net_name,
            dst_net_role,
            dst_net_site,
            dst_net_region,
            dst_net_tenant,
            dst_country,
            dst_city,
            protocol_num,
            protocol_name,
            tcp_flags,
            tos,
            dscp,
            ttl_min,
            ttl_max,
            icmp_type,
            icmp_code,
            fragment_id,
            fragment_offset,
            ipv6_flow_label,
            bytes_total,
            packets_total,
            bytes_raw,
            packets_raw,
            counted_layer,
            bytes_l2_total,
            bytes_l3_total,
            sampling_rate,
            sampling_source,
            sampler_id,
            sampler_name,
            sampler_address,
            exporter_name,
            exporter_group,
            exporter_role,
            exporter_site,
            exporter_region,
            observation_domain,
            in_if,
            in_if_name,
            in_if_description,
            in_if_speed_bps,
            in_if_boundary,
            in_if_provider,
            in_if_connectivity,
            out_if,
            out_if_name,
            out_if_description,
            out_if_speed_bps,
            out_if_boundary,
            out_if_provider,
            out_if_connectivity,
            in_vrf_id,
            in_vrf_name,
            out_vrf_id,
            out_vrf_name,
            src_as_number,
            dst_as_number,
            src_as_name,
            dst_as_name,
            next_hop,
            bgp_next_hop,
            as_path,
            bgp_communities,
            vlan,
            src_vlan,
            dst_vlan,
            customer_vlan,
            mpls_labels,
            ether_type,
            direction,
            app,
            app_id,
            forwarding_status,
            discard_reason,
            flow_end_reason,
            firewall_event,
            nat_event,
            flow_id,
            flow_type,
            src_device_uid,
            dst_device_uid,
            exporter_device_uid,
            unmapped,
            enriched_by,
            notes,
        } = self;
        *len += 1;
        let (start, start_is_absurd) = sane(flow.start_us, cx.received.0);
        let (end, end_is_absurd) = sane(flow.end_us, cx.received.0);
        tenant_id.append_value(cx.tenant);
        partition.append_value(cx.partition);
        row_id.append_value(cx.row_id.0);
        epoch.append_value(cx.epoch);
        time.append_value(end.or(start).unwrap_or(cx.received.0));
        start_time.push(start.map(Time));
        received_at.append_value(cx.received.0);

        address(src_endpoint_ip, src_endpoint_ip_bin, flow.src_ip);
        number(src_endpoint_port, flow.src_port);
        mac(src_mac, flow.src_mac);
        number(src_prefix_length, flow.src_prefix);
        src_nat_ip.push(flow.src_nat_ip);
        number(src_nat_port, flow.src_nat_port);
        text(src_user_name, &flow.src_user);
        let net = enriched.src_net;
        known(src_net_name, net, |n| &n.name);
        known(src_net_role, net, |n| &n.role);
        known(src_net_site, net, |n| &n.site);
        known(src_net_region, net, |n| &n.region);
        known(src_net_tenant, net, |n| &n.net_tenant);
        let place = enriched.src_place;
        known_or(src_country, net.and_then(|n| n.country.as_deref()), place.and_then(|p| p.country.as_deref()));
        known_or(src_city, net.and_then(|n| n.city.as_deref()), place.and_then(|p| p.city.as_deref()));
        address(dst_endpoint_ip, dst_endpoint_ip_bin, flow.dst_ip);
        number(dst_endpoint_port, flow.dst_port);
        mac(dst_mac, flow.dst_mac);
        number(dst_prefix_length, flow.dst_prefix);
        dst_nat_ip.push(flow.dst_nat_ip);
        number(dst_nat_port, flow.dst_nat_port);
        text(dst_user_name, &flow.dst_user);
        let net = enriched.dst_net;
        known(dst_net_name, net, |n| &n.name);
        known(dst_net_role, net, |n| &n.role);
        known(dst_net_site, net, |n| &n.site);
        known(dst_net_region, net, |n| &n.region);
        known(dst_net_tenant, net, |n| &n.net_tenant);
        let place = enriched.dst_place;
        known_or(dst_country, net.and_then(|n| n.country.as_deref()), place.and_then(|p| p.country.as_deref()));
        known_or(dst_city, net.and_then(|n| n.city.as_deref()), place.and_then(|p| p.city.as_deref()));

        number(protocol_num, flow.protocol);
        named(protocol_name, flow.protocol.map(names::protocol));
        number(tcp_flags, flow.tcp_flags);
        number(tos, flow.tos);
        number(dscp, flow.tos.map(|tos| tos >> 2));
        number(ttl_min, flow.ttl.map(|(least, _)| least));
        number(ttl_max, flow.ttl.map(|(_, greatest)| greatest));
        number(icmp_type, flow.icmp_type);
        number(icmp_code, flow.icmp_code);
        number(fragment_id, flow.fragment_id);
        number(fragment_offset, flow.fragment_offset);
        number(ipv6_flow_label, flow.flow_label);

        let configured = enriched.exporter.and_then(|e| e.sampling_rate);
        let sampling = flow.sampling.or(configured.map(|rate| (rate, SamplingSource::Configured)));
        let (rate, source) = match sampling {
            Some((rate, source)) if rate > 0 => (Some(clamp(rate)), source),
            _ => (None, SamplingSource::Unknown),
        };
        let total = |n: i64| n.saturating_mul(rate.unwrap_or(1));
        let counted = |n: Option<u64>| n.filter(|n| *n > 0);
        let (layer, bytes) = match (counted(flow.bytes), counted(flow.l2_bytes)) {
            (Some(bytes), _) => (Some(3), bytes),
            (None, Some(bytes)) => (Some(2), bytes),
            (None, None) => (flow.bytes.map(|_| 3).or(flow.l2_bytes.map(|_| 2)), 0),
        };
        let (bytes, packets) = (clamp(bytes), clamp(flow.packets));
        bytes_total.append_value(total(bytes));
        packets_total.append_value(total(packets));
        bytes_raw.append_value(bytes);
        packets_raw.append_value(packets);
        counted_layer.push(layer);
        bytes_l2_total.push(flow.l2_bytes.map(|n| total(clamp(n))));
        bytes_l3_total.push(flow.bytes.or(flow.header_bytes.map(u64::from)).map(|n| total(clamp(n))));
        sampling_rate.push(rate);
        sampling_source.append_value(source.name());
        sampler_id.push(flow.sampler_id.map(clamp));
        text(sampler_name, &flow.sampler_name);
        cx.sampler.append(sampler_address);
        known(exporter_name, enriched.exporter, |e| &e.name);
        known(exporter_group, enriched.exporter, |e| &e.group);
        known(exporter_role, enriched.exporter, |e| &e.role);
        known(exporter_site, enriched.exporter, |e| &e.site);
        known(exporter_region, enriched.exporter, |e| &e.region);
        number(observation_domain, flow.domain);

        number(in_if, flow.in_if);
        let interface = enriched.in_if;
        told(in_if_name, &flow.in_if_name, interface.and_then(|i| i.name.as_deref()));
        told(in_if_description, &flow.in_if_description, interface.and_then(|i| i.description.as_deref()));
        in_if_speed_bps.push(interface.and_then(|i| i.speed_bps));
        known(in_if_boundary, interface, |i| &i.boundary);
        known(in_if_provider, interface, |i| &i.provider);
        known(in_if_connectivity, interface, |i| &i.connectivity);
        number(out_if, flow.out_if);
        let interface = enriched.out_if;
        told(out_if_name, &flow.out_if_name, interface.and_then(|i| i.name.as_deref()));
        told(out_if_description, &flow.out_if_description, interface.and_then(|i| i.description.as_deref()));
        out_if_speed_bps.push(interface.and_then(|i| i.speed_bps));
        known(out_if_boundary, interface, |i| &i.boundary);
        known(out_if_provider, interface, |i| &i.provider);
        known(out_if_connectivity, interface, |i| &i.connectivity);
        number(in_vrf_id, flow.in_vrf);
        text(in_vrf_name, &flow.in_vrf_name);
        number(out_vrf_id, flow.out_vrf);
        text(out_vrf_name, &flow.out_vrf_name);
        number(src_as_number, Enriched::as_number(flow.src_as, enriched.src_place));
        number(dst_as_number, Enriched::as_number(flow.dst_as, enriched.dst_place));
        text(src_as_name, enriched.src_as_name.unwrap_or_default());
        text(dst_as_name, enriched.dst_as_name.unwrap_or_default());
        next_hop.push(flow.next_hop);
        bgp_next_hop.push(flow.bgp_next_hop);
        list(as_path, &flow.as_path, |n, out| write!(out, "{n}"));
        list(bgp_communities, &flow.communities, |n, out| out.write_str(&names::community(n)));
        number(vlan, flow.vlan);
        number(src_vlan, flow.src_vlan);
        number(dst_vlan, flow.dst_vlan);
        number(customer_vlan, flow.customer_vlan);
        list(mpls_labels, &flow.labels, |n, out| write!(out, "{n}"));
        number(ether_type, flow.ether_type);

        match flow.direction.and_then(|d| ["ingress", "egress"].get(usize::from(d))) {
            Some(name) => direction.slot().append_value(name),
            None => direction.skip(),
        }
        told(app, &flow.app, enriched.app);
        let by_port = enriched.app.filter(|_| flow.app.is_empty());
        match flow.app_id {
            Some((engine, selector)) => {
                let builder = app_id.slot();
                let _ = write!(builder, "{engine}:{selector}");
                builder.append_value("");
            }
            None => app_id.skip(),
        }
        number(forwarding_status, flow.forwarding_status);
        named(discard_reason, flow.discard_reason.map(names::discard_reason));
        named(flow_end_reason, flow.end_reason.map(names::flow_end_reason));
        named(firewall_event, flow.firewall_event.map(names::firewall_event));
        number(nat_event, flow.nat_event);
        flow_id.push(flow.flow_id.map(|id| id.to_string()));
        flow_type.append_value(cx.flow_type);
        // Attribution's.
        src_device_uid.skip();
        dst_device_uid.skip();
        exporter_device_uid.skip();
        if flow.unmapped.is_empty() {
            unmapped.skip();
        } else {
            let builder = unmapped.slot();
            for (name, value) in flow.unmapped.iter() {
                builder.keys().append_value(name);
                builder.values().append_value(value);
            }
            builder.append(true).expect("as many keys as values");
        }
        if by_port.is_none() && enriched.is_nothing() {
            enriched_by.skip();
        } else {
            let builder = enriched_by.slot();
            let mut by = |of: &str, who: Option<&str>| {
                if let Some(who) = who {
                    builder.keys().append_value(of);
                    builder.values().append_value(who);
                }
            };
            by("app", by_port.map(|_| "port"));
            by("dst_net", enriched.dst_net.map(|n| n.prefix.as_str()));
            by("dst_place", enriched.dst_place.map(|p| p.files.as_str()));
            by("exporter", enriched.exporter.map(|e| e.prefix.as_str()));
            by("in_if", enriched.in_if.map(|i| i.rule_id.as_str()));
            by("out_if", enriched.out_if.map(|i| i.rule_id.as_str()));
            by("src_net", enriched.src_net.map(|n| n.prefix.as_str()));
            by("src_place", enriched.src_place.map(|p| p.files.as_str()));
            builder.append(true).expect("as many keys as values");
        }
        match (start_is_absurd || end_is_absurd, flow.unmapped.is_cut()) {
            (false, false) => notes.skip(),
            (true, false) => notes.slot().append_value(CLAMPED),
            (false, true) => notes.slot().append_value(LEFT_OUT),
            (true, true) => notes.slot().append_value(format!("{CLAMPED}; {LEFT_OUT}")),
        }
    }
}

/// A time as the exporter tells it, or receipt where that is nonsense, and whether it is.
fn sane(us: Option<i64>, received_us: i64) -> (Option<i64>, bool) {
    match us {
        Some(us) if us.abs_diff(received_us) > ABSURD_US => (Some(received_us), true),
        us => (us, false),
    }
}

fn clamp(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn number(column: &mut Optional<i64>, value: Option<impl Into<i64>>) {
    match value {
        Some(value) => column.slot().append_value(value.into()),
        None => column.skip(),
    }
}

fn text(column: &mut Optional<String>, value: &str) {
    if value.is_empty() { column.skip() } else { column.slot().append_value(value) }
}

/// What the exporter says, or else what is known beside.
fn told(column: &mut Optional<String>, value: &str, known: Option<&str>) {
    text(column, if value.is_empty() { known.unwrap_or_default() } else { value });
}

/// What the tables say, or else what files say.
fn known_or(column: &mut Optional<String>, tables: Option<&str>, files: Option<&str>) {
    text(column, tables.or(files).unwrap_or_default());
}

/// A field of what is known.
fn known<T>(column: &mut Optional<String>, of: Option<&T>, field: impl Fn(&T) -> &Option<String>) {
    text(column, of.and_then(|of| field(of).as_deref()).unwrap_or_default());
}

fn named(column: &mut Optional<String>, value: Option<std::borrow::Cow<'static, str>>) {
    match value {
        Some(value) => column.slot().append_value(value),
        None => column.skip(),
    }
}

fn mac(column: &mut Optional<String>, value: Option<[u8; 6]>) {
    let Some(value) = value else { return column.skip() };
    let mut digits = [0; 12];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(value) {
        let digit = |half: u8| b"0123456789ABCDEF"[usize::from(half)];
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
    column.slot().append_value(std::str::from_utf8(&digits).expect("digits are ASCII"));
}

fn address(column: &mut Optional<IpAddr>, bytes: &mut Optional<IpBytes>, value: Option<IpAddr>) {
    column.push(value);
    bytes.push(value.map(IpBytes::from));
}

fn list(
    column: &mut Optional<Vec<String>>,
    values: &[u32],
    write: impl Fn(u32, &mut arrow_array::builder::StringBuilder) -> std::fmt::Result,
) {
    if values.is_empty() {
        return column.skip();
    }
    let builder = column.slot();
    for value in values {
        // A `StringBuilder` is a `fmt::Write`, and cannot fail.
        let _ = write(*value, builder.values());
        builder.values().append_value("");
    }
    builder.append(true);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::{self, BatchBuilder, Row};

    fn context() -> FlowContext<'static> {
        FlowContext {
            tenant: "t",
            partition: "p",
            row_id: RowId::new(1, 2, 3),
            epoch: 1,
            received: Time(1_700_000_000_000_000),
            sampler: [10, 0, 0, 9].into(),
            flow_type: "ipfix",
        }
    }

    fn row(flow: &Flow) -> rows::Flow {
        let mut batch = FlowBatch::default();
        // One that says nothing on either side: no column slips.
        batch.push_flow(&Flow::default(), &Enriched::default(), &context());
        batch.push_flow(flow, &Enriched::default(), &context());
        batch.push_flow(&Flow::default(), &Enriched::default(), &context());
        let batch = batch.finish();
        assert_eq!(rows::Flow::read(&batch, 0), rows::Flow::read(&batch, 2));
        rows::Flow::read(&batch, 1)
    }

    #[test]
    fn bytes_say_of_which_layer_they_are() {
        let of = |bytes, l2_bytes, header_bytes| {
            let sampling = Some((10, SamplingSource::Record));
            let row = row(&Flow { bytes, l2_bytes, header_bytes, sampling, ..Flow::default() });
            (row.bytes_total, row.bytes_raw, row.counted_layer, row.bytes_l2_total, row.bytes_l3_total)
        };
        assert_eq!(of(Some(100), Some(114), None), (1000, 100, Some(3), Some(1140), Some(1000)));
        assert_eq!(of(None, Some(114), Some(100)), (1140, 114, Some(2), Some(1140), Some(1000)));
        assert_eq!(of(Some(0), Some(114), None), (1140, 114, Some(2), Some(1140), Some(0)));
        assert_eq!(of(Some(0), None, None), (0, 0, Some(3), None, Some(0)));
        assert_eq!(of(None, None, None), (0, 0, None, None, None));
    }

    #[test]
    fn what_a_flow_says_stands_in_its_columns() {
        let mut flow = Flow {
            start_us: Some(0),
            src_ip: Some("2001:db8::1".parse().unwrap()),
            src_mac: Some([0, 1, 0xab, 0xcd, 0xef, 0xff]),
            protocol: Some(58),
            tos: Some(0xb8),
            ttl: Some((1, 64)),
            as_path: vec![65_001, 4_200_000_000],
            communities: vec![0xfde8_0064, 0xffff_ff01],
            labels: vec![16, 17],
            app_id: Some((13, 80)),
            direction: Some(255),
            discard_reason: Some(258),
            flow_id: Some(u64::MAX),
            in_if_name: "ge-0/0/0".to_owned(),
            ..Flow::default()
        };
        flow.unmapped.push((9, 1, 1), &[7], false);
        let row = row(&flow);
        assert_eq!((row.time, row.notes.as_deref()), (context().received, Some(CLAMPED)));
        assert_eq!(row.src_endpoint_ip, flow.src_ip);
        assert_eq!(row.src_endpoint_ip_bin, flow.src_ip.map(IpBytes::from));
        assert_eq!((row.src_mac.as_deref(), row.protocol_name.as_deref()), (Some("0001ABCDEFFF"), Some("ipv6-icmp")));
        assert_eq!((row.dscp, row.ttl_min, row.ttl_max), (Some(46), Some(1), Some(64)));
        assert_eq!(row.as_path, Some(vec!["65001".to_owned(), "4200000000".to_owned()]));
        assert_eq!(row.bgp_communities, Some(vec!["65000:100".to_owned(), "NO_EXPORT".to_owned()]));
        assert_eq!(row.mpls_labels, Some(vec!["16".to_owned(), "17".to_owned()]));
        assert_eq!((row.app_id.as_deref(), row.direction), (Some("13:80"), None));
        assert_eq!(
            (row.discard_reason.as_deref(), row.flow_id.as_deref()),
            (Some("acl"), Some("18446744073709551615"))
        );
        assert_eq!((row.in_if_name.as_deref(), row.out_if_name), (Some("ge-0/0/0"), None));
        assert_eq!(row.unmapped.unwrap().0, [("9.1".to_owned(), "7".to_owned())].into());
        let cleared = {
            let mut flow = flow.clone();
            flow.clear();
            flow
        };
        assert_eq!(cleared, Flow::default());
    }
}

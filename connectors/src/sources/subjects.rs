//! What a message of a stream or topic is, by its subject: the same on NATS and Kafka.

use radarflow_proto::frame::Kind;

/// Subjects that are read where nothing is configured.
pub const DEFAULT: &[&str] = &["flows.raw.netflow", "flows.raw.sflow", "logs.syslog", "logs.snmp"];

/// Who decodes a subject's messages. A prefix before it (`site7.logs.syslog`) says nothing of its content.
pub fn kind(subject: &str) -> Option<Kind> {
    let is = |name: &str| subject.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if is("flows.raw.netflow") || is("flows.raw.sflow") {
        Some(Kind::FlowMessage)
    } else if is("logs.syslog") {
        Some(Kind::Gelf)
    } else if is("logs.snmp") {
        Some(Kind::TrapJson)
    } else if is("logs.otel") {
        Some(Kind::OtlpLogs)
    } else if is("otel.traces.raw") {
        Some(Kind::OtlpTraces)
    } else if is("otel.metrics.raw") {
        Some(Kind::OtlpMetrics)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_whole_token() {
        assert!(DEFAULT.iter().all(|s| kind(s).is_some()));
        assert_eq!(kind("site7.logs.snmp"), Some(Kind::TrapJson));
        assert_eq!(kind("site7.otel.traces.raw"), Some(Kind::OtlpTraces));
        assert_eq!((kind("logs.otel"), kind("otel.metrics.raw")), (Some(Kind::OtlpLogs), Some(Kind::OtlpMetrics)));
        assert_eq!(kind("catalogs.syslog"), None);
        assert_eq!(kind("logs.syslog.processed"), None);
    }
}

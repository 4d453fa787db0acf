//! Rules, alerts, and what became of them.

use crate::cell::{Cell, RowId, Tags, Time};
use crate::table::rows;

rows! {
    /// Who is told of which alert now: a row an alert, receiver and group, and why it is told, or is not.
    State AlertNotification AlertNotificationBatch "alert_notifications" postgres "alert_notifications"
        key [tenant_id, partition, alert_id, receiver, group_key] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// The alert.
        alert_id: String,
        /// The receiver.
        receiver: String,
        /// The group that it is told with.
        group_key: String,
        /// The route that leads there, its nodes by name; empty where there are no routes.
        route: String,
        /// `waiting`, `sending`, `told`, or `held`: it is not told now.
        state: String,
        /// Why.
        reason: String,
        /// Until when that holds, where it ends by the clock.
        until: Option<Time>,
        /// What the receiver was told last: `firing` or `resolved`; null for nothing.
        told: Option<String>,
        /// When.
        told_at: Option<Time>,
        /// By which message.
        notification_id: Option<String>,
        /// Epoch of this version.
        epoch: i64,
    }

    /// Messages that their receiver did not take, until it takes them after all or they are too old.
    State DeadLetter DeadLetterBatch "dead_letters" postgres "dead_letters"
        key [tenant_id, partition, receiver, notification_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// The receiver.
        receiver: String,
        /// The message; equal for every attempt at it.
        notification_id: String,
        /// The group it is about.
        group_key: String,
        /// `firing` or `resolved`.
        status: String,
        /// Alerts it tells of.
        alert_ids: Vec<String>,
        /// Why it was not taken.
        reason: String,
        /// Since when it is dead.
        died_at: Time,
        /// Whether it is sent again now.
        replaying: bool,
        /// Epoch of this version.
        epoch: i64,
    }

    /// Rules: queries whose answers are alerts.
    State Rule RuleBatch "rules" postgres "rules" key [tenant_id, partition, name] {
        /// Customer.
        tenant_id: String,
        /// Always `default`: a rule is the whole tenant's.
        partition: String,
        /// Its name: the alerts' `rule`, and their label `alertname`.
        name: String,
        /// Whether it is followed.
        enabled: bool,
        /// What it asks: an SRQL query. There is an alert for each row that it would return, whenever it were asked.
        query: String,
        /// Seconds that a row must be there before there is an alert.
        for_s: i64,
        /// Seconds that a row must be gone before the alert is over.
        resolve_for_s: i64,
        /// `emergency`, `critical`, `warning` or `info`.
        severity: String,
        /// The title of its alerts; `{name}` is the value of a key or of a measure.
        title: String,
        /// More of it, likewise.
        description: String,
        /// Where it is written what to do.
        runbook_url: Option<String>,
        /// Labels of its alerts beside the keys, each `NAME=VALUE`.
        labels: Vec<String>,
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

    /// Clear pairs: traps that begin something, and those that end it.
    State ClearPair ClearPairBatch "clear_pairs" postgres "clear_pairs" key [tenant_id, partition, name] {
        /// Customer.
        tenant_id: String,
        /// Always `default`: a pair is the whole tenant's.
        partition: String,
        /// Its name: the alerts' `rule`. One called `link-down` takes the place of the pair that is there without being stated.
        name: String,
        /// Whether it is followed.
        enabled: bool,
        /// The traps (`snmpTrapOID`) that begin it.
        begins: Vec<String>,
        /// The traps that end it.
        ends: Vec<String>,
        /// What it is about beside the sender, each `LABEL=OBJECT`: the value of the binding of that object.
        about: Vec<String>,
        /// `emergency`, `critical`, `warning` or `info`.
        severity: String,
        /// The title of its alerts; `{source}` is the sender, `{label}` a value of what it is about.
        title: String,
        /// More of it, likewise.
        description: String,
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

    /// Alerts, one per fingerprint and start.
    State Alert AlertBatch "alerts" postgres "alerts" key [tenant_id, partition, id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// Deterministic: fingerprint and start.
        id: String,
        /// Names the condition: rule and labels, not the moment.
        fingerprint: String,
        /// One line for a person.
        title: String,
        /// More of it.
        description: String,
        /// `emergency`, `critical`, `warning` or `info`.
        severity: String,
        /// `pending`, `acknowledged`, `escalated`, `resolved` or `suppressed`.
        status: String,
        /// What kind of thing it is about: `device`, `agent`, `log`, `trap`.
        source_type: String,
        /// Which one.
        source_id: String,
        /// The device it is about.
        device_uid: Option<String>,
        /// The agent it is about.
        agent_uid: Option<String>,
        /// Rule that raised it.
        rule: String,
        /// Condition began.
        triggered_at: Time,
        /// Somebody took it.
        acknowledged_at: Option<Time>,
        /// Who.
        acknowledged_by: Option<String>,
        /// Condition ended, or a person said so.
        resolved_at: Option<Time>,
        /// Who: `system` when the condition ended.
        resolved_by: Option<String>,
        /// It waited too long.
        escalated_at: Option<Time>,
        /// How often it was escalated since it began.
        escalation_level: i64,
        /// Until when it is not wanted; null for as long as its condition holds.
        suppressed_until: Option<Time>,
        /// Who does not want it.
        suppressed_by: Option<String>,
        /// What was measured, where a measurement raised it.
        metric_name: Option<String>,
        /// What was found, a decimal number.
        metric_value: Option<String>,
        /// What that was compared with, a decimal number.
        threshold_value: Option<String>,
        /// How: `>`, `>=`, `<`, `<=`, `=` or `!=`.
        comparison: Option<String>,
        /// When a receiver took the newest message about it.
        last_notification_at: Option<Time>,
        /// Messages about it that receivers took.
        notification_count: i64,
        /// Times the condition was confirmed while it was open.
        occurrence_count: i64,
        /// Labels, for routing and grouping.
        labels: Tags,
        /// Explanations, for people.
        annotations: Tags,
        /// Epoch of this version.
        epoch: i64,
    }

    /// What Radarflow itself noticed, as OCSF events.
    Event Event EventBatch "events" postgres "" key [row_id] {
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
        /// OCSF class.
        class_uid: i64,
        /// OCSF activity.
        activity_name: String,
        /// OCSF severity, 1 (informational) to 6 (fatal).
        severity_id: i64,
        /// In words.
        message: String,
        /// What it is about: `device`, `agent`, `alert`.
        entity_type: String,
        /// Which one.
        entity_id: String,
        /// The device it is about.
        device_uid: Option<String>,
        /// More.
        attributes: Tags,
    }

    /// Each change of a health state.
    Event HealthEvent HealthEventBatch "health_events" postgres "health_events" key [tenant_id, row_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// Unique, kept by compaction.
        row_id: RowId,
        /// Epoch at which the row was emitted.
        epoch: i64,
        /// `device`, `agent`, `source`.
        entity_type: String,
        /// Which one.
        entity_id: String,
        /// Before.
        old_state: String,
        /// After: of devices `available`, `unavailable`, `unreachable` (down behind another that is down) or `unknown`.
        new_state: String,
        /// Why.
        reason: String,
        /// How long the old state held, seconds.
        duration_seconds: Option<i64>,
        /// When.
        recorded_at: Time,
        /// The device it is about.
        device_uid: Option<String>,
    }

    /// Each step of an alert.
    Event AlertHistory AlertHistoryBatch "alert_history" postgres "alert_history" key [tenant_id, row_id] {
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
        /// The alert.
        alert_id: String,
        /// Status before; null for the first.
        old_status: Option<String>,
        /// Status after.
        new_status: String,
        /// Who: a person, a token, or `system`.
        actor: String,
        /// Why.
        reason: String,
        /// The device it is about.
        device_uid: Option<String>,
    }

    /// Each notification due, and what became of it.
    Event Notification NotificationBatch "notifications" postgres "notifications" key [tenant_id, row_id] {
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
        /// The message; equal for every attempt at it.
        notification_id: String,
        /// The receiver.
        receiver: String,
        /// The group it is about.
        group_key: String,
        /// `due`, `delivered` or `failed`.
        outcome: String,
        /// `firing` or `resolved`.
        status: String,
        /// Alerts it tells of.
        alert_ids: Vec<String>,
        /// Why it was sent now, or why it failed.
        reason: String,
    }

    /// What agents say of services, as last said. Shaped as ServiceRadar's `service_state`.
    State ServiceState ServiceStateBatch "services" postgres "service_state"
        key [tenant_id, partition, agent_id, service_type, service_name] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// The agent that says it.
        agent_id: String,
        /// Its type: `icmp`, `sweep`, `sysmon`, `plugin`, …
        service_type: String,
        /// Its name.
        service_name: String,
        /// The gateway it is said through.
        gateway_id: Option<String>,
        /// Whether it is available; null once nothing was heard of it for a quarter of an hour.
        available: Option<bool>,
        /// `available`, `unavailable` or `unknown`.
        state: String,
        /// Since when.
        since: Time,
        /// What is said of it, in words or JSON.
        message: Option<String>,
        /// When it was last spoken of.
        last_seen: Time,
        /// Epoch of this version.
        epoch: i64,
    }
}

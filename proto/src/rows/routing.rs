//! Who is told of which alerts, when, and when not.

use crate::cell::{Cell, Time};
use crate::table::rows;

rows! {
    /// Where notifications are sent.
    State Receiver ReceiverBatch "receivers" postgres "receivers" key [tenant_id, partition, name] {
        /// Customer.
        tenant_id: String,
        /// Always `default`: a receiver is the whole tenant's.
        partition: String,
        /// Its name.
        name: String,
        /// Where messages are posted: scheme and host.
        url: String,
        /// Shape of the messages: `alertmanager` (webhook, version 4), `alertmanager_api` (`/api/v2/alerts`), `serviceradar`,
        /// `slack`, `discord`, `teams`, `pagerduty` (events, version 2), `opsgenie`, `ocsf`, `template` or `email`.
        kind: String,
        /// What a message of kind `template` says: text that makes JSON.
        template: Option<String>,
        /// Whether each message bears a signature.
        signed: bool,
        /// Labels whose values make a group.
        group_by: Vec<String>,
        /// How long a new group waits for company, milliseconds.
        group_wait_ms: i64,
        /// Least time between messages about a group that changed, milliseconds.
        group_interval_ms: i64,
        /// After which time an unchanged firing group is told again, milliseconds.
        repeat_interval_ms: i64,
        /// Whether the end of a condition is told too.
        send_resolved: bool,
        /// Names of the headers that are sent.
        header_names: Vec<String>,
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

    /// Who is told of which alerts: a tree, a node a row. An alert goes down from those without a parent; beneath a node that
    /// matches, the first that matches takes it, and those after one that says `continue` too.
    State Route RouteBatch "routes" postgres "routes" key [tenant_id, partition, name] {
        /// Customer.
        tenant_id: String,
        /// Always `default`: routes are the whole tenant's.
        partition: String,
        /// Its name.
        name: String,
        /// The node above; null for a first one.
        parent: Option<String>,
        /// Where it stands among those of its parent: by this, then by name.
        position: i64,
        /// What labels must be, each `name="value"`, `!=`, `=~` or `!~`; all must hold.
        matchers: Vec<String>,
        /// Who is told; empty for whom the node above says, `-` for nobody.
        receivers: Vec<String>,
        /// Labels whose values make a group; `...` for all. Empty for those of the node above.
        group_by: Vec<String>,
        /// How long a new group waits for company, milliseconds; null for what the node above says.
        group_wait_ms: Option<i64>,
        /// Least time between messages about a group that changed, milliseconds; null likewise.
        group_interval_ms: Option<i64>,
        /// After which time an unchanged firing group is told again, milliseconds; null likewise.
        repeat_interval_ms: Option<i64>,
        /// Whether those after it are asked too.
        r#continue: bool,
        /// Time intervals in which nothing is told.
        mute_time_intervals: Vec<String>,
        /// Time intervals in which alone something is told; empty for always.
        active_time_intervals: Vec<String>,
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

    /// Alerts that nobody is told of for a time. A silence goes by itself when it ends.
    State Silence SilenceBatch "silences" postgres "silences" key [tenant_id, partition, name] {
        /// Customer.
        tenant_id: String,
        /// Always `default`: silences are the whole tenant's.
        partition: String,
        /// Its name.
        name: String,
        /// What labels must be, each `name="value"`, `!=`, `=~` or `!~`; all must hold.
        matchers: Vec<String>,
        /// When it begins; null for at once.
        starts_at: Option<Time>,
        /// When it ends.
        ends_at: Time,
        /// Why.
        comment: String,
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

    /// Alerts of which nobody is told while others burn.
    State InhibitRule InhibitRuleBatch "inhibit_rules" postgres "inhibit_rules" key [tenant_id, partition, name] {
        /// Customer.
        tenant_id: String,
        /// Always `default`: they are the whole tenant's.
        partition: String,
        /// Its name.
        name: String,
        /// What labels of an alert must be that keeps others back.
        source_matchers: Vec<String>,
        /// What labels of those must be that are kept back.
        target_matchers: Vec<String>,
        /// Labels that must be the same of both.
        equal: Vec<String>,
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

    /// Named times of the week and year.
    State TimeInterval TimeIntervalBatch "time_intervals" postgres "time_intervals" key [tenant_id, partition, name] {
        /// Customer.
        tenant_id: String,
        /// Always `default`: they are the whole tenant's.
        partition: String,
        /// Its name.
        name: String,
        /// The times, any of which counts: `weekdays=monday:friday times=09:00-17:00 location=Europe/Berlin`, and likewise
        /// `days_of_month=1:5,-1`, `months=january:march`, `years=2026:2028`.
        periods: Vec<String>,
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

    /// Work on devices, of whose alerts nobody is told meanwhile.
    State MaintenanceWindow MaintenanceWindowBatch "maintenance_windows" postgres "maintenance_windows"
        key [tenant_id, partition, name] {
        /// Customer.
        tenant_id: String,
        /// Always `default`: they are the whole tenant's; `partitions` says what it is about.
        partition: String,
        /// Its name.
        name: String,
        /// The devices, as the query language says them; null for all.
        condition: Option<String>,
        /// The partitions; empty for all.
        partitions: Vec<String>,
        /// When it begins; null for at once.
        starts_at: Option<Time>,
        /// When it ends, and goes by itself; null for never.
        ends_at: Option<Time>,
        /// Time intervals in which alone it holds; empty for always.
        time_intervals: Vec<String>,
        /// Why.
        comment: String,
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

    /// What becomes of alerts that nobody takes.
    State EscalationPolicy EscalationPolicyBatch "escalation_policies" postgres "escalation_policies"
        key [tenant_id, partition, name] {
        /// Customer.
        tenant_id: String,
        /// Always `default`: they are the whole tenant's.
        partition: String,
        /// Its name.
        name: String,
        /// The first that matches counts: by this, then by name.
        position: i64,
        /// What labels must be, each `name="value"`, `!=`, `=~` or `!~`; all must hold.
        matchers: Vec<String>,
        /// After which time each level comes, from the beginning of the alert: `30m`, `2h`. Empty for never.
        levels: Vec<String>,
        /// Who is told from each level on, beside those that routes name: a receiver, `oncall:ROTA`, or `-`.
        receivers: Vec<String>,
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

    /// People who are on call in turn.
    State Rota RotaBatch "rotas" postgres "rotas" key [tenant_id, partition, name] {
        /// Customer.
        tenant_id: String,
        /// Always `default`: they are the whole tenant's.
        partition: String,
        /// Its name; routes name whoever is on call `oncall:` and this.
        name: String,
        /// In the order of their turns: `PERSON=RECEIVER`, or a receiver that is called as the person is.
        people: Vec<String>,
        /// When the first turn begins.
        starts_at: Time,
        /// How long a turn is: `1w`, `1d`, `12h`.
        shift: String,
        /// Whose time of day turns of whole days end at.
        time_zone: String,
        /// Time intervals in which alone somebody is on call; empty for always.
        time_intervals: Vec<String>,
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

    /// People who take over in a rota for a while.
    State RotaOverride RotaOverrideBatch "rota_overrides" postgres "rota_overrides" key [tenant_id, partition, name] {
        /// Customer.
        tenant_id: String,
        /// Always `default`: they are the whole tenant's.
        partition: String,
        /// Its name.
        name: String,
        /// The rota.
        rota: String,
        /// Somebody of the rota, or `PERSON=RECEIVER`.
        person: String,
        /// When it begins.
        starts_at: Time,
        /// When it ends.
        ends_at: Time,
        /// Why.
        comment: String,
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

    /// Who is on call now: a row a rota. `at:` tells who was.
    State OnCall OnCallBatch "oncall" postgres "oncall" key [tenant_id, partition, rota] {
        /// Customer.
        tenant_id: String,
        /// Always `default`: rotas are the whole tenant's.
        partition: String,
        /// The rota.
        rota: String,
        /// Who; null while nobody is.
        person: Option<String>,
        /// The receiver by which they are told.
        receiver: Option<String>,
        /// Since when, as far as the turn or the override goes back; null before the first turn.
        since: Option<Time>,
        /// Until when at least, if it ends.
        until: Option<Time>,
        /// The override by which it is them and nobody else.
        rota_override: Option<String>,
        /// Who is next.
        next_person: Option<String>,
        /// From when on.
        next_at: Option<Time>,
        /// Epoch of this version.
        epoch: i64,
    }
}

//! Every output table, declared once: the Rust row, the Arrow schema, the Postgres columns, the documentation that
//! `radarflow docs lake` prints and the catalog that SRQL resolves names against all come from these declarations.
//!
//! *State* tables hold one row a key and change by [`Change`]; *event* tables only grow. `tenant_id` and `partition`
//! lead every key.

use std::net::IpAddr;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use serde::{Deserialize, Serialize};

use crate::cell::{Cell, IpBytes, Real, RowId, Tags, Time};
pub use crate::state::{Change, StateRow, state_batch};
use crate::table::tables;
pub use crate::table::{BatchBuilder, Column, Nature, Row, copy_key};

tables! {
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

    /// People who sign in.
    State User UserBatch "users" postgres "users" key [tenant_id, partition, name] {
        /// Customer. It never changes: somebody who moves is another user.
        tenant_id: String,
        /// Always `default`: a user is the whole tenant's.
        partition: String,
        /// What they sign in with.
        name: String,
        /// What they are called.
        display_name: String,
        /// Where mail reaches them.
        email: Option<String>,
        /// What they may do: `viewer`, `helpdesk`, `operator`, `admin`, or a custom role.
        role: String,
        /// The only partitions they may see; none for all.
        partitions: Vec<String>,
        /// Whether they are kept from signing in.
        disabled: bool,
        /// Whether they have a password.
        has_password: bool,
        /// Whether a code of their authenticator (TOTP, RFC 6238) is asked for too.
        second_factor: bool,
        /// The identity provider that signs them in, if one does.
        provider: Option<String>,
        /// Who they are to that provider: its `sub`, which never names somebody else.
        subject: Option<String>,
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

    /// Roles that a tenant made itself: sets of permissions.
    State Role RoleBatch "roles" postgres "roles" key [tenant_id, partition, name] {
        /// Customer.
        tenant_id: String,
        /// Always `default`: a role is the whole tenant's.
        partition: String,
        /// Its name.
        name: String,
        /// What it is for.
        description: String,
        /// What it allows: `RESOURCE:VERB`, `RESOURCE:*`.
        permissions: Vec<String>,
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

    /// API tokens. Only their hashes are known, and these are not shown.
    State ApiToken ApiTokenBatch "tokens" postgres "api_tokens" key [tenant_id, partition, token_id] {
        /// Customer.
        tenant_id: String,
        /// Always `default`: which partitions it sees, `partitions` says.
        partition: String,
        /// Names it; not a secret.
        token_id: String,
        /// What it is for.
        name: String,
        /// What it allows: `viewer`, `helpdesk`, `operator`, `admin`, or a custom role.
        role: String,
        /// The only partitions it may see; none for all.
        partitions: Vec<String>,
        /// When it ends; null for never.
        expires_at: Option<Time>,
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

    /// Sessions of people who signed in. Only hashes of what lets them in are known, and these are not shown.
    State Session SessionBatch "sessions" postgres "sessions" key [tenant_id, partition, session_id] {
        /// Customer.
        tenant_id: String,
        /// Always `default`.
        partition: String,
        /// Names it; not a secret.
        session_id: String,
        /// The user who signed in.
        user: String,
        /// How: `password`, `link` (sent by mail), `oidc:PROVIDER`.
        method: String,
        /// The address they came from.
        address: Option<String>,
        /// What they came with, as it says of itself.
        user_agent: Option<String>,
        /// When it ends, whatever happens.
        expires_at: Time,
        /// When it began.
        created_at: Time,
        /// Epoch of this version.
        epoch: i64,
    }

    /// Links that let somebody in once, sent by mail. Only hashes of them are known, and these are not shown.
    State SignInLink SignInLinkBatch "sign_in_links" postgres "sign_in_links" key [tenant_id, partition, link_id] {
        /// Customer.
        tenant_id: String,
        /// Always `default`.
        partition: String,
        /// Names it; not a secret.
        link_id: String,
        /// The user it lets in.
        user: String,
        /// The address that asked for it.
        address: Option<String>,
        /// When it lets nobody in any more.
        expires_at: Time,
        /// When it was sent.
        created_at: Time,
        /// Epoch of this version.
        epoch: i64,
    }

    /// Providers that sign people in (OpenID Connect).
    State IdentityProvider IdentityProviderBatch "identity_providers" postgres "identity_providers" key [tenant_id, partition, name] {
        /// Customer.
        tenant_id: String,
        /// Always `default`: a provider is the whole tenant's.
        partition: String,
        /// Its name, as the sign-in page shows it.
        name: String,
        /// Who issues its tokens, a URL; `/.well-known/openid-configuration` below it says the rest.
        issuer: String,
        /// What we are called there.
        client_id: String,
        /// Whether there is a client secret.
        has_client_secret: bool,
        /// What is asked for beside `openid`; `profile` and `email` where nothing is said.
        scopes: Vec<String>,
        /// The claim that is the name of the user here. It should name nobody else later.
        user_claim: String,
        /// The claim that lists the groups of somebody.
        groups_claim: String,
        /// What members of groups may do, each `group=role`; the first that holds.
        roles: Vec<String>,
        /// What somebody in none of these groups may do; null lets them not in.
        default_role: Option<String>,
        /// Whether who is not known here is made a user when they first sign in.
        create_users: bool,
        /// Whether it lets nobody in.
        disabled: bool,
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
        /// Epoch of this version.
        epoch: i64,
    }

    /// Network flows. Named and shaped as ServiceRadar's `ocsf_network_activity`.
    Event Flow FlowBatch "flows" postgres "" key [row_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// Unique, kept by compaction.
        row_id: RowId,
        /// Epoch at which the row was emitted.
        epoch: i64,
        /// End of the flow, as the exporter says, clamped to receipt when absurd.
        time: Time,
        /// Start of the flow.
        start_time: Option<Time>,
        /// Receipt.
        received_at: Time,
        /// Source address.
        src_endpoint_ip: Option<IpAddr>,
        /// Source address, sixteen bytes.
        src_endpoint_ip_bin: Option<IpBytes>,
        /// Source port.
        src_endpoint_port: Option<i64>,
        /// Source MAC.
        src_mac: Option<String>,
        /// Length of the prefix by which the source is routed, bits (IPFIX 9, 29; sFlow extended router).
        src_prefix_length: Option<i64>,
        /// Source address after translation (IPFIX 225, 281; sFlow extended NAT).
        src_nat_ip: Option<IpAddr>,
        /// Source port after translation (IPFIX 227; sFlow extended NAT port).
        src_nat_port: Option<i64>,
        /// User at the source (IPFIX 371, ASA 40000, PAN-OS 56702; sFlow extended user).
        src_user_name: Option<String>,
        /// Name of the source's network (configuration).
        src_net_name: Option<String>,
        /// Role of the source's network (configuration).
        src_net_role: Option<String>,
        /// Site of the source's network (configuration).
        src_net_site: Option<String>,
        /// Region of the source's network (configuration).
        src_net_region: Option<String>,
        /// Who has the source's network (configuration).
        src_net_tenant: Option<String>,
        /// Country of the source's network, ISO 3166 alpha-2 (configuration).
        src_country: Option<String>,
        /// City of the source's network (configuration).
        src_city: Option<String>,
        /// Destination address.
        dst_endpoint_ip: Option<IpAddr>,
        /// Destination address, sixteen bytes.
        dst_endpoint_ip_bin: Option<IpBytes>,
        /// Destination port.
        dst_endpoint_port: Option<i64>,
        /// Destination MAC.
        dst_mac: Option<String>,
        /// Length of the prefix by which the destination is routed, bits (IPFIX 13, 30; sFlow extended router).
        dst_prefix_length: Option<i64>,
        /// Destination address after translation (IPFIX 226, 282; sFlow extended NAT).
        dst_nat_ip: Option<IpAddr>,
        /// Destination port after translation (IPFIX 228; sFlow extended NAT port).
        dst_nat_port: Option<i64>,
        /// User at the destination (sFlow extended user).
        dst_user_name: Option<String>,
        /// Name of the destination's network (configuration).
        dst_net_name: Option<String>,
        /// Role of the destination's network (configuration).
        dst_net_role: Option<String>,
        /// Site of the destination's network (configuration).
        dst_net_site: Option<String>,
        /// Region of the destination's network (configuration).
        dst_net_region: Option<String>,
        /// Who has the destination's network (configuration).
        dst_net_tenant: Option<String>,
        /// Country of the destination's network, ISO 3166 alpha-2 (configuration).
        dst_country: Option<String>,
        /// City of the destination's network (configuration).
        dst_city: Option<String>,
        /// IP protocol number.
        protocol_num: Option<i64>,
        /// IP protocol name.
        protocol_name: Option<String>,
        /// TCP flags, ORed.
        tcp_flags: Option<i64>,
        /// Type of service.
        tos: Option<i64>,
        /// Differentiated services code point: the upper six bits of `tos` (RFC 2474; IPFIX 195).
        dscp: Option<i64>,
        /// Least time to live, or hop limit, of the flow's packets (IPFIX 52, 192; sampled header).
        ttl_min: Option<i64>,
        /// Greatest time to live, or hop limit, of the flow's packets (IPFIX 53, 192; sampled header).
        ttl_max: Option<i64>,
        /// ICMP type, of either version (IPFIX 32, 139, 176, 178; sampled header).
        icmp_type: Option<i64>,
        /// ICMP code, of either version (IPFIX 32, 139, 177, 179; sampled header).
        icmp_code: Option<i64>,
        /// Identification of the packet that fragments share (IPFIX 54; sampled header).
        fragment_id: Option<i64>,
        /// Where the fragment begins in its packet, units of eight bytes (IPFIX 88; sampled header).
        fragment_offset: Option<i64>,
        /// IPv6 flow label (IPFIX 31; sampled header).
        ipv6_flow_label: Option<i64>,
        /// Bytes, times the sampling rate: of the layer that `counted_layer` says.
        bytes_total: i64,
        /// Packets, times the sampling rate.
        packets_total: i64,
        /// Bytes as reported.
        bytes_raw: i64,
        /// Packets as reported.
        packets_raw: i64,
        /// Layer whose bytes `bytes_total` and `bytes_raw` count: 3, IP packets, where the exporter counts them; 2, whole
        /// frames; null where it counts none.
        counted_layer: Option<i64>,
        /// Bytes of frames, layer 2, times the sampling rate (IPFIX 352, 312; sFlow's frame length).
        bytes_l2_total: Option<i64>,
        /// Bytes of IP packets, layer 3, times the sampling rate (IPFIX 1, 23, 85, 231; what a sampled header says).
        bytes_l3_total: Option<i64>,
        /// One in how many packets was looked at; null while unknown.
        sampling_rate: Option<i64>,
        /// Who told the rate: `record`, `options`, `header`, `configured` or `unknown`.
        sampling_source: String,
        /// Which sampler of the exporter looked (IPFIX 48, 302; sFlow's data source).
        sampler_id: Option<i64>,
        /// Its name (IPFIX 84, 335, in options).
        sampler_name: Option<String>,
        /// The exporter's address.
        sampler_address: IpAddr,
        /// Name of the exporter (configuration).
        exporter_name: Option<String>,
        /// Group of the exporter (configuration).
        exporter_group: Option<String>,
        /// Role of the exporter (configuration).
        exporter_role: Option<String>,
        /// Site of the exporter (configuration).
        exporter_site: Option<String>,
        /// Region of the exporter (configuration).
        exporter_region: Option<String>,
        /// Which part of the exporter observed: v5 engine, v9 source id, IPFIX observation domain, sFlow sub-agent.
        observation_domain: Option<i64>,
        /// Input interface index.
        in_if: Option<i64>,
        /// Name of the input interface (IPFIX 82, in options; else a rule).
        in_if_name: Option<String>,
        /// Description of the input interface (IPFIX 83, in options; else a rule).
        in_if_description: Option<String>,
        /// Speed of the input interface, bits per second (rule).
        in_if_speed_bps: Option<i64>,
        /// Boundary of the input interface: `internal` or `external` (rule).
        in_if_boundary: Option<String>,
        /// Who is at the other end of the input interface (rule).
        in_if_provider: Option<String>,
        /// What the input interface connects by: `transit`, `peering`, … (rule).
        in_if_connectivity: Option<String>,
        /// Output interface index.
        out_if: Option<i64>,
        /// Name of the output interface (IPFIX 82, in options; else a rule).
        out_if_name: Option<String>,
        /// Description of the output interface (IPFIX 83, in options; else a rule).
        out_if_description: Option<String>,
        /// Speed of the output interface, bits per second (rule).
        out_if_speed_bps: Option<i64>,
        /// Boundary of the output interface: `internal` or `external` (rule).
        out_if_boundary: Option<String>,
        /// Who is at the other end of the output interface (rule).
        out_if_provider: Option<String>,
        /// What the output interface connects by: `transit`, `peering`, … (rule).
        out_if_connectivity: Option<String>,
        /// Routing instance it came in by (IPFIX 234).
        in_vrf_id: Option<i64>,
        /// Name of the routing instance it came in by (IPFIX 236, in options too).
        in_vrf_name: Option<String>,
        /// Routing instance it left by (IPFIX 235).
        out_vrf_id: Option<i64>,
        /// Name of the routing instance it left by (IPFIX 236, in options).
        out_vrf_name: Option<String>,
        /// Source autonomous system.
        src_as_number: Option<i64>,
        /// Destination autonomous system.
        dst_as_number: Option<i64>,
        /// Name of the source's autonomous system (configuration).
        src_as_name: Option<String>,
        /// Name of the destination's autonomous system (configuration).
        dst_as_name: Option<String>,
        /// Next hop.
        next_hop: Option<IpAddr>,
        /// Next hop of BGP (IPFIX 18, 63; sFlow extended gateway).
        bgp_next_hop: Option<IpAddr>,
        /// Autonomous systems to the destination, the nearest first (sFlow extended gateway).
        as_path: Option<Vec<String>>,
        /// BGP communities of the route to the destination, `65000:100` or by their names of RFC 1997 (IPFIX 483; sFlow
        /// extended gateway).
        bgp_communities: Option<Vec<String>>,
        /// VLAN: the innermost tag of a sampled frame, else the source's, else the destination's.
        vlan: Option<i64>,
        /// VLAN that it came in by (IPFIX 58, 243; sFlow extended switch; outermost tag of a sampled frame).
        src_vlan: Option<i64>,
        /// VLAN that it left by (IPFIX 59, 254; sFlow extended switch).
        dst_vlan: Option<i64>,
        /// The customer's VLAN within the provider's (IPFIX 245; second tag of a sampled frame).
        customer_vlan: Option<i64>,
        /// MPLS labels, the top first (IPFIX 70 to 79; sFlow extended MPLS; sampled header).
        mpls_labels: Option<Vec<String>>,
        /// Ethernet type.
        ether_type: Option<i64>,
        /// `ingress` or `egress`, as the exporter says.
        direction: Option<String>,
        /// Application, as the exporter says, else the configured one that has its port.
        app: Option<String>,
        /// Its id, as classification engine and selector, `13:80` (IPFIX 95, RFC 6759).
        app_id: Option<String>,
        /// What became of it: 64 to 127 forwarded, 128 to 191 dropped, 192 to 255 consumed, by reason (IPFIX 89).
        forwarding_status: Option<i64>,
        /// Why the exporter dropped the packet; null where nobody says that it did (sFlow discarded packet, output format 1).
        discard_reason: Option<String>,
        /// Why the flow ended: `idle_timeout`, `active_timeout`, `end_of_flow`, `forced_end`, `lack_of_resources` (IPFIX 136).
        flow_end_reason: Option<String>,
        /// What a firewall tells of: `ignore`, `created`, `deleted`, `denied`, `alert`, `updated` (IPFIX 233, ASA 40005).
        firewall_event: Option<String>,
        /// What a translator tells of, by its number (IPFIX 230): 1 translation created, 2 deleted, 3 addresses exhausted, 4
        /// and 5 session created and deleted.
        nat_event: Option<i64>,
        /// What the exporter calls the flow (IPFIX 148), decimal.
        flow_id: Option<String>,
        /// Protocol that brought it: `netflow_v5`, `netflow_v9`, `ipfix`, `sflow_v5`, `flowpb`.
        flow_type: String,
        /// Device that owned the source address, by what was known at `epoch`.
        src_device_uid: Option<String>,
        /// Device that owned the destination address.
        dst_device_uid: Option<String>,
        /// Device that owned the exporter's address.
        exporter_device_uid: Option<String>,
        /// Elements that no column is for: `enterprise.element` to a number, a text, or `0x` and hex digits. Where a record
        /// has one again it is `enterprise.element#2`, and so on.
        unmapped: Option<Tags>,
        /// Who told what is not the exporter's: of `exporter`, `src_net` and `dst_net` the prefix that it was in; of `src_place`
        /// and `dst_place` the files that have the address; of `in_if` and `out_if` the `rule_id`; of `app` that it was a `port`.
        enriched_by: Option<Tags>,
        /// What the decoder had to say: clamped times, elements left out.
        notes: Option<String>,
    }

    /// What an interface counted since it started, as sFlow agents report it. Counters start anew when the agent does.
    Event InterfaceCounters InterfaceCountersBatch "interface_counters" postgres "" key [row_id] {
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
        /// The agent's address.
        sampler_address: IpAddr,
        /// Which part of the agent observed: its sub-agent.
        observation_domain: i64,
        /// Interface index (`ifIndex`).
        if_index: i64,
        /// Kind of interface, by IANA's number (`ifType`).
        if_type: i64,
        /// Speed, bits per second (`ifSpeed`).
        if_speed_bps: i64,
        /// `full_duplex`, `half_duplex`, `in`, `out`; null while unknown.
        if_direction: Option<String>,
        /// Whether it is meant to be up (`ifAdminStatus`).
        is_admin_up: bool,
        /// Whether it is up (`ifOperStatus`).
        is_oper_up: bool,
        /// Bytes received (`ifHCInOctets`).
        in_bytes: i64,
        /// Packets received, to one address (`ifInUcastPkts`).
        in_unicast_packets: Option<i64>,
        /// Packets received, to many (`ifInMulticastPkts`).
        in_multicast_packets: Option<i64>,
        /// Packets received, to all (`ifInBroadcastPkts`).
        in_broadcast_packets: Option<i64>,
        /// Packets received and discarded, though they were right (`ifInDiscards`).
        in_discards: Option<i64>,
        /// Packets received that were wrong (`ifInErrors`).
        in_errors: Option<i64>,
        /// Packets received of protocols that it does not know (`ifInUnknownProtos`).
        in_unknown_protocols: Option<i64>,
        /// Bytes sent (`ifHCOutOctets`).
        out_bytes: i64,
        /// Packets sent, to one address (`ifOutUcastPkts`).
        out_unicast_packets: Option<i64>,
        /// Packets sent, to many (`ifOutMulticastPkts`).
        out_multicast_packets: Option<i64>,
        /// Packets sent, to all (`ifOutBroadcastPkts`).
        out_broadcast_packets: Option<i64>,
        /// Packets to send that were discarded, though they were right (`ifOutDiscards`).
        out_discards: Option<i64>,
        /// Packets that could not be sent (`ifOutErrors`).
        out_errors: Option<i64>,
        /// Whether it takes in packets for others (`ifPromiscuousMode`).
        is_promiscuous: bool,
        /// Device that owned the agent's address, by what was known at `epoch`.
        device_uid: Option<String>,
    }

    /// Log messages. Named and shaped as ServiceRadar's `logs`.
    Event Log LogBatch "logs" postgres "" key [row_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// Unique, kept by compaction.
        row_id: RowId,
        /// Epoch at which the row was emitted.
        epoch: i64,
        /// The device's own time if it gave one, clamped to receipt when absurd.
        time: Time,
        /// The device's own time, as given.
        device_time: Option<Time>,
        /// Receipt.
        received_at: Time,
        /// The sender's address: the socket's, never the message's claim.
        source_ip: Option<IpAddr>,
        /// Host name the message claims.
        hostname: Option<String>,
        /// Application name.
        service_name: Option<String>,
        /// Process id.
        process_id: Option<String>,
        /// Message id.
        message_id: Option<String>,
        /// Syslog facility, 0 to 23.
        facility: Option<i64>,
        /// Syslog severity, 0 (emergency) to 7 (debug).
        severity_number: Option<i64>,
        /// Its name: `emergency`, `alert`, `critical`, `error`, `warning`, `notice`, `info`, `debug`.
        severity: Option<String>,
        /// The message.
        body: String,
        /// Structured data.
        attributes: Tags,
        /// `rfc5424`, `rfc3164`, `gelf`, or why it is stored as it came.
        parse_status: String,
        /// The bytes, where they are not simply the body.
        raw: Option<Vec<u8>>,
        /// The parsing rule that read it, and in which version: `NAME@EPOCH`.
        parsed_by: Option<String>,
        /// Device that owned the sender's address, by what was known at `epoch`.
        device_uid: Option<String>,
        /// When OpenTelemetry's collector first saw it.
        observed_time: Option<Time>,
        /// OpenTelemetry's severity, 1 (trace) to 24 (fatal), where it is one of its log records.
        otel_severity_number: Option<i64>,
        /// The sender's own word for the severity, as OpenTelemetry carries it.
        severity_as_sent: Option<String>,
        /// Its trace, 32 hex digits.
        trace_id: Option<String>,
        /// Its span, 16 hex digits.
        span_id: Option<String>,
        /// Flags of its trace (W3C).
        trace_flags: Option<i64>,
        /// What kind of event it is, as its source names it.
        event_name: Option<String>,
        /// The version of what is called `service_name`.
        service_version: Option<String>,
        /// Which instance of it.
        service_instance: Option<String>,
        /// The library that wrote it.
        scope_name: Option<String>,
        /// The version of the library.
        scope_version: Option<String>,
        /// What OpenTelemetry's resource says of who wrote it.
        resource_attributes: Option<Tags>,
    }

    /// SNMP traps and informs.
    Event Trap TrapBatch "traps" postgres "" key [row_id] {
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
        /// The agent's address: `snmpTrapAddress` if given, else the socket's.
        source_ip: Option<IpAddr>,
        /// The socket's address.
        peer_ip: Option<IpAddr>,
        /// `v1`, `v2c` or `v3`.
        version: String,
        /// Whether an answer was due.
        inform: bool,
        /// Keyed hash of the community; the community itself is never kept.
        community_hash: Option<String>,
        /// The user who says it, of v3.
        user_name: Option<String>,
        /// How it was protected, of v3: `noAuthNoPriv`, `authNoPriv` or `authPriv`.
        security_level: Option<String>,
        /// The engine whose keys and time it is under, hex digits, of v3.
        engine_id: Option<String>,
        /// The context it is about, of v3: a VRF, an instance.
        context_name: Option<String>,
        /// `snmpTrapOID`.
        trap_oid: String,
        /// Its name, where known.
        trap_name: Option<String>,
        /// The agent's up-time, hundredths of a second.
        uptime: Option<i64>,
        /// Variable bindings, OID to value.
        varbinds: Tags,
        /// Device that owned the agent's address, by what was known at `epoch`.
        device_uid: Option<String>,
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

    /// What people, configuration and the program itself stated: who, what, when.
    Event Audit AuditBatch "audit" postgres "" key [row_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// Unique, kept by compaction.
        row_id: RowId,
        /// Epoch at which the row was emitted.
        epoch: i64,
        /// Its place in the chain of its tenant, from 1; none of rows that are older than chains.
        sequence: Option<i64>,
        /// When it became durable.
        time: Time,
        /// Who: a token's name, `configuration`, `radarflow`.
        actor: String,
        /// What was done: of resources `RESOURCE:VERB` (`users:create`, `tokens:delete`); otherwise the name of the fact (`link`,
        /// `device_step`, `sign_in_failed`, …); `inventory_run`, `plan_applied`.
        action: String,
        /// What it was done to.
        subject: String,
        /// Why, where a reason was given.
        reason: Option<String>,
        /// The fact without its secrets, JSON.
        detail: String,
        /// The hash of the row before it; none in the first.
        previous: Option<String>,
        /// SHA-256 of this row and of `previous`: what `radarflow audit verify` computes again.
        hash: Option<String>,
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

    /// Spans of traces, as OpenTelemetry has them. Named and shaped as ServiceRadar's `otel_traces`.
    Event OtelTrace OtelTraceBatch "otel_traces" postgres "" key [row_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// Unique, kept by compaction.
        row_id: RowId,
        /// Epoch at which the row was emitted.
        epoch: i64,
        /// When it began, clamped to receipt when absurd.
        time: Time,
        /// Receipt.
        received_at: Time,
        /// The sender's address: the socket's.
        source_ip: Option<IpAddr>,
        /// Its trace, 32 hex digits.
        trace_id: String,
        /// Itself, 16 hex digits.
        span_id: String,
        /// The span that it is part of; null of a root.
        parent_span_id: Option<String>,
        /// W3C's `tracestate`.
        trace_state: Option<String>,
        /// What was done.
        name: String,
        /// 0 unspecified, 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
        span_kind: i64,
        /// When it began, as sent, nanoseconds since 1970.
        start_time_unix_nano: i64,
        /// When it ended, as sent, nanoseconds since 1970.
        end_time_unix_nano: i64,
        /// How long it took, milliseconds; null where it has no beginning or no end, or ends before it begins.
        duration_ms: Option<Real>,
        /// 0 unset, 1 ok, 2 error.
        status_code: i64,
        /// What went wrong.
        status_message: Option<String>,
        /// `service.name` of the resource.
        service_name: Option<String>,
        /// `service.version`.
        service_version: Option<String>,
        /// `service.instance.id`.
        service_instance: Option<String>,
        /// `service.namespace`.
        service_namespace: Option<String>,
        /// `deployment.environment.name`.
        deployment_environment: Option<String>,
        /// The library that says it.
        scope_name: Option<String>,
        /// Its version.
        scope_version: Option<String>,
        /// What the scope says beside that.
        scope_attributes: Option<Tags>,
        /// Names and values.
        attributes: Tags,
        /// What the resource says.
        resource_attributes: Tags,
        /// What happened meanwhile, a JSON list.
        events: Option<String>,
        /// Spans that it is linked with, a JSON list.
        links: Option<String>,
        /// Attributes that the sender dropped, or we did beyond 1,024.
        dropped_attributes_count: i64,
        /// Events that the sender dropped, or we did beyond 128.
        dropped_events_count: i64,
        /// Links that the sender dropped, or we did beyond 128.
        dropped_links_count: i64,
        /// Device that owned the sender's address, by what was known at `epoch`.
        device_uid: Option<String>,
    }

    /// Data points of metrics, as OpenTelemetry has them: a row a point.
    Event OtelMetric OtelMetricBatch "otel_metrics" postgres "" key [row_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// Unique, kept by compaction.
        row_id: RowId,
        /// Epoch at which the row was emitted.
        epoch: i64,
        /// When it was measured, clamped to receipt when absurd.
        time: Time,
        /// Receipt.
        received_at: Time,
        /// The sender's address: the socket's.
        source_ip: Option<IpAddr>,
        /// What is measured.
        metric_name: String,
        /// `gauge`, `sum`, `histogram`, `exponential_histogram` or `summary`.
        metric_type: String,
        /// What that is.
        description: Option<String>,
        /// In which unit.
        unit: Option<String>,
        /// `delta` or `cumulative`.
        temporality: Option<String>,
        /// Of a sum: whether it never falls.
        is_monotonic: Option<bool>,
        /// Since when it was counted, as sent, nanoseconds since 1970; null for unknown.
        start_time_unix_nano: Option<i64>,
        /// When it was measured, as sent, nanoseconds since 1970.
        time_unix_nano: i64,
        /// A gauge's or a sum's value; null where none was recorded, or it is no finite number.
        value: Option<Real>,
        /// The same where it is a whole number, exactly.
        value_int: Option<i64>,
        /// Of a monotonic sum: what was added since the point before of its series, or since it began anew; null of the first.
        delta: Option<Real>,
        /// The same a second.
        rate: Option<Real>,
        /// How many values were observed.
        count: Option<i64>,
        /// Their sum.
        sum: Option<Real>,
        /// The least of them.
        min: Option<Real>,
        /// The greatest.
        max: Option<Real>,
        /// Buckets or quantiles, JSON: `{bounds, counts}`, `{scale, zero_count, zero_threshold, positive, negative}` or
        /// `[{quantile, value}]`.
        distribution: Option<String>,
        /// Examples with their traces, a JSON list.
        exemplars: Option<String>,
        /// `service.name` of the resource.
        service_name: Option<String>,
        /// `service.version`.
        service_version: Option<String>,
        /// `service.instance.id`.
        service_instance: Option<String>,
        /// `service.namespace`.
        service_namespace: Option<String>,
        /// `deployment.environment.name`.
        deployment_environment: Option<String>,
        /// The library that says it.
        scope_name: Option<String>,
        /// Its version.
        scope_version: Option<String>,
        /// What the scope says beside that.
        scope_attributes: Option<Tags>,
        /// Names and values.
        attributes: Tags,
        /// What the resource says.
        resource_attributes: Tags,
        /// Device that owned the sender's address, by what was known at `epoch`.
        device_uid: Option<String>,
    }

    /// Traces of the last hour as their spans tell of them, kept up to date as spans come, late and in any order. Named and
    /// shaped as ServiceRadar's `otel_trace_summaries`; older ones are grouped from `otel_traces`.
    State TraceSummary TraceSummaryBatch "trace_summaries" postgres "otel_trace_summaries" key [tenant_id, partition, trace_id] {
        /// Customer.
        tenant_id: String,
        /// Site or address space.
        partition: String,
        /// The trace, 32 hex digits.
        trace_id: String,
        /// When its first span began.
        start_time: Time,
        /// When its last span ended.
        end_time: Time,
        /// The same, nanoseconds since 1970.
        start_time_unix_nano: i64,
        /// The same, nanoseconds since 1970.
        end_time_unix_nano: i64,
        /// From the beginning of the first to the end of the last, milliseconds.
        duration_ms: Real,
        /// The span that is part of none: of several the first; null while it did not come.
        root_span_id: Option<String>,
        /// What it did.
        root_span_name: Option<String>,
        /// Whose it is.
        root_service_name: Option<String>,
        /// 0 unspecified, 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
        root_span_kind: Option<i64>,
        /// How it ended: 0 unset, 1 ok, 2 error.
        status_code: Option<i64>,
        /// What went wrong in it.
        status_message: Option<String>,
        /// Services that had spans in it, 32 at most.
        service_set: Vec<String>,
        /// How many spans there are; one that came twice counts once.
        span_count: i64,
        /// How many of them ended with an error.
        error_count: i64,
        /// Whether nothing came for half a minute.
        is_closed: bool,
        /// Epoch of this version.
        epoch: i64,
    }
}

impl Table {
    /// Columns that name the device that had an address, and the columns of these addresses.
    pub fn attributed(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Table::Flow => &[
                ("src_device_uid", "src_endpoint_ip"),
                ("dst_device_uid", "dst_endpoint_ip"),
                ("exporter_device_uid", "sampler_address"),
            ],
            Table::InterfaceCounters => &[("device_uid", "sampler_address")],
            Table::Log | Table::Trap | Table::OtelTrace | Table::OtelMetric => &[("device_uid", "source_ip")],
            Table::Probe => &[("device_uid", "ip")],
            Table::CpuMetric | Table::MemoryMetric | Table::DiskMetric | Table::ProcessMetric => {
                &[("device_uid", "host_ip")]
            }
            Table::TimeseriesMetric => &[("device_uid", "target_device_ip")],
            Table::MtrTrace => &[("device_uid", "target_ip")],
            Table::MtrHop => &[("device_uid", "hop_ip")],
            _ => &[],
        }
    }
}

/// A message of which nothing is known.
impl Default for Log {
    fn default() -> Self {
        Log {
            tenant_id: String::new(),
            partition: String::new(),
            row_id: RowId::default(),
            epoch: 0,
            time: Time(0),
            device_time: None,
            received_at: Time(0),
            source_ip: None,
            hostname: None,
            service_name: None,
            process_id: None,
            message_id: None,
            facility: None,
            severity_number: None,
            severity: None,
            body: String::new(),
            attributes: Tags::default(),
            parse_status: String::new(),
            raw: None,
            parsed_by: None,
            device_uid: None,
            observed_time: None,
            otel_severity_number: None,
            severity_as_sent: None,
            trace_id: None,
            span_id: None,
            trace_flags: None,
            event_name: None,
            service_version: None,
            service_instance: None,
            scope_name: None,
            scope_version: None,
            resource_attributes: None,
        }
    }
}

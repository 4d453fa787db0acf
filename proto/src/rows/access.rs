//! Who may sign in and do what, and who did.

use crate::cell::{Cell, RowId, Time};
use crate::table::rows;

rows! {
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
}

//! Resources: whatever operators and administrators state, declared once.
//!
//! ```text
//! Command (an entry of the ledger) ─► [Judge of its tenant, at its epoch and position] ─┬─► Judgement, to who asked
//!                                                                                       ├─► rows, and what they mean
//!                                                                                       └─► audit
//! ```
//! A kind of resource is a table (`radarflow_proto::rows`) and a file here that declares it ([`ResourceKind`]). Routes,
//! permissions, OpenAPI, the command line, the audit and the judge follow from that; what a resource *means* is said by
//! whoever reads its changes in the dataflow.
//!
//! | file | says |
//! |---|---|
//! | [`kind`] | what is declared of a kind |
//! | [`world`] | what stands in a tenant while a command is judged |
//! | [`judge`], `judges` | what becomes of a command: of one tenant, of all |
//! | `users`, `roles`, `tokens`, `sessions`, `links`, `providers`, `receivers`, `groups`, `profiles`, `rules`, `dependencies`, `pairs`, `integrations`, `parsing`, `edge` | the kinds |
//! | `routes`, `silences`, `inhibition`, `times`, `maintenance`, `escalation`, `rotas` | the kinds of who is told of alerts |
//! | [`told`] | resources as facts of old, and facts of old as commands |

mod dependencies;
pub mod edge;
pub mod escalation;
mod groups;
mod inhibition;
mod integrations;
pub mod judge;
mod judges;
pub mod kind;
mod links;
mod maintenance;
mod pairs;
mod parsing;
mod profiles;
pub mod providers;
mod receivers;
mod roles;
mod rotas;
mod routes;
mod rules;
mod sessions;
mod silences;
mod times;
mod tokens;
pub mod told;
mod users;
pub mod world;

use std::sync::LazyLock;

use radarflow_proto::rows::Table;

pub use self::judge::{At, Judge, Verdict};
pub use self::judges::Judges;
pub use self::kind::{Field, Holds, MadeBy, ResourceAction, ResourceKind, Wrong};
pub use self::users::is_mail;
use crate::access::{Action, Permission};

/// Every kind of resource, by name.
pub static KINDS: &[&ResourceKind] = &[
    &edge::CERTIFICATE_AUTHORITIES,
    &pairs::CLEAR_PAIRS,
    &dependencies::DEPENDENCIES,
    &groups::DEVICE_GROUPS,
    &edge::EDGE_PACKAGES,
    &escalation::ESCALATION_POLICIES,
    &providers::IDENTITY_PROVIDERS,
    &inhibition::INHIBIT_RULES,
    &integrations::INTEGRATIONS,
    &maintenance::MAINTENANCE_WINDOWS,
    &parsing::PARSING_RULES,
    &profiles::PROFILES,
    &receivers::RECEIVERS,
    &roles::ROLES,
    &rotas::ROTAS,
    &rotas::ROTA_OVERRIDES,
    &rules::RULES,
    &routes::ROUTES,
    &sessions::SESSIONS,
    &links::SIGN_IN_LINKS,
    &silences::SILENCES,
    &times::TIME_INTERVALS,
    &tokens::TOKENS,
    &users::USERS,
];

/// The kind of that name.
pub fn named(name: &str) -> Option<&'static ResourceKind> {
    KINDS.iter().copied().find(|kind| kind.name() == name)
}

/// The kind of a table.
pub fn of_table(table: Table) -> Option<&'static ResourceKind> {
    KINDS.iter().copied().find(|kind| kind.table == table)
}

/// Every permission there is.
pub fn all_permissions() -> &'static [Permission] {
    static ALL: LazyLock<Vec<Permission>> = LazyLock::new(|| {
        let of_resources = KINDS.iter().flat_map(|kind| kind.permissions());
        let mut all: Vec<Permission> =
            Action::ALL.iter().map(|action| action.permission()).chain(of_resources).collect();
        all.sort_by_key(|permission| (permission.resource, permission.verb, permission.least));
        all.dedup_by_key(|permission| (permission.resource, permission.verb));
        all
    });
    &ALL
}

#[cfg(test)]
mod tests;

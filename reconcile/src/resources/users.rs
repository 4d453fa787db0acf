//! People who sign in. Their tenant never changes, and nobody gives them more than he has.

use radarflow_proto::fact::Role;
use radarflow_proto::resource::{RefusalCode, Resource};
use radarflow_proto::rows::Table;
use serde_json::{Value, json};

use super::kind::{Field, MadeBy, ResourceAction, ResourceKind, Wrong};
use super::world::World;

/// The declaration.
pub(super) static USERS: ResourceKind = ResourceKind {
    table: Table::User,
    singular: "user",
    id: "name",
    fields: &[
        Field::text("display_name", 200).or(""),
        Field::text("email", 254),
        Field::text("role", 64).required(),
        Field::texts("partitions", 1000, 200),
        Field::flag("disabled", false),
        Field::text("provider", 200).drops(&["subject"]),
        Field::text("subject", 3000),
        Field::text("password", 1000).secret("What they sign in with; argon2id of it is kept."),
        Field::text("totp", 500).server().secret("What codes of their authenticator follow from."),
        Field::text("totp_step", 20)
            .server()
            .secret("The time step of the newest code that was taken: none is taken twice."),
    ],
    actions: &[
        ResourceAction::new("sign_out", "Ends all of their sessions.", Role::Admin),
        ResourceAction {
            clears: &["totp", "totp_step"],
            ..ResourceAction::new(
                "reset_second_factor",
                "Forgets their authenticator, and ends all of their sessions: for somebody who lost it.",
                Role::Admin,
            )
        },
    ],
    read: Role::Admin,
    write: Role::Admin,
    made_by: MadeBy::People,
    most: 10_000,
    expires: None,
    check,
    derived,
};

fn check(world: &World<'_>, user: &Resource) -> Result<(), Wrong> {
    if user.text("email").is_some_and(|email| !is_mail(email)) {
        return Err(Wrong::field("email", "it is an address of mail: name@domain"));
    }
    if user.text("provider").is_some() && user.secrets.contains_key("password") {
        let detail = "who signs in with an identity provider has no password here: set one of them to null";
        return Err(Wrong::field("password", detail));
    }
    given(world, user)
}

/// The role exists, and is not above who gives it.
pub(super) fn given(world: &World<'_>, to: &Resource) -> Result<(), Wrong> {
    let name = to.text("role").unwrap_or_default();
    let Some(role) = world.role(name) else {
        let built_in = Role::ALL.map(Role::name).join(", ");
        let detail = format!("there is no role {name}; built in are {built_in}");
        return Err(Wrong::field("role", detail).of(RefusalCode::Reference));
    };
    if world.covers(&role) {
        return Ok(());
    }
    Err(Wrong::field("role", format!("{name} allows more than you may do")).of(RefusalCode::Forbidden))
}

fn derived(user: &Resource) -> Vec<(&'static str, Value)> {
    let has = |secret: &str| json!(user.secrets.contains_key(secret));
    vec![("has_password", has("password")), ("second_factor", has("totp"))]
}

/// Whether a text looks like an address of mail (RFC 5321, without comments, quotes and address literals).
pub fn is_mail(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let label = |l: &str| !l.is_empty() && l.len() <= 63 && !l.starts_with('-') && !l.ends_with('-');
    let fits = |c: char| c.is_alphanumeric() || c == '-';
    (1..=64).contains(&local.len())
        && !local.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '@' | '<' | '>' | ',' | ';'))
        && domain.len() <= 253
        && domain.split('.').all(|l| label(l) && l.chars().all(fits))
}

#[cfg(test)]
mod tests {
    use super::is_mail;

    #[test]
    fn addresses_of_mail_are_told_from_other_texts() {
        for mail in ["ann@example.net", "a.b+c@host", "ann@bücher.example"] {
            assert!(is_mail(mail), "{mail}");
        }
        for other in ["", "ann", "@host", "ann@", "ann@-host", "a b@host", "a@b@c", "a@b..c", "a\n@host", "a,b@host"] {
            assert!(!is_mail(other), "{other}");
        }
    }
}

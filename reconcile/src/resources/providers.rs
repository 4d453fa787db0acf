//! Providers that sign people in (OpenID Connect Core 1.0). What somebody may do follows from their groups there; a provider gives
//! nothing that whoever states it has not.

use radarflow_proto::fact::Role;
use radarflow_proto::resource::{RefusalCode, Resource};
use radarflow_proto::rows::Table;
use serde_json::Value;

use super::kind::{Field, MadeBy, ResourceKind, Wrong};
use super::world::World;

/// The declaration.
pub(super) static IDENTITY_PROVIDERS: ResourceKind = ResourceKind {
    table: Table::IdentityProvider,
    singular: "identity_provider",
    id: "name",
    fields: &[
        // What was meant for one issuer is not sent to another.
        Field::text("issuer", 1000).required().drops(&["client_secret"]),
        Field::text("client_id", 500).required(),
        Field::text("client_secret", 4000).secret("What we show it to be its client; none of a public client."),
        Field::texts("scopes", 20, 100),
        Field::text("user_claim", 100).or("preferred_username"),
        Field::text("groups_claim", 100).or("groups"),
        Field::texts("roles", 500, 500),
        Field::text("default_role", 64),
        Field::flag("create_users", true),
        Field::flag("disabled", false),
    ],
    actions: &[],
    read: Role::Admin,
    write: Role::Admin,
    made_by: MadeBy::People,
    most: 20,
    expires: None,
    check,
    derived: |provider| vec![("has_client_secret", Value::Bool(provider.secrets.contains_key("client_secret")))],
};

/// A group and the role of its members.
fn pair(text: &str) -> Option<(&str, &str)> {
    // A group may have the sign in its name (`CN=ops,DC=example`); a role has not.
    text.rsplit_once('=').filter(|(group, role)| !group.is_empty() && !role.is_empty())
}

/// Every role that it gives.
pub(super) fn gives(provider: &Resource) -> impl Iterator<Item = String> {
    let pairs: Vec<String> =
        provider.texts("roles").iter().filter_map(|text| pair(text)).map(|(_, role)| role.to_owned()).collect();
    pairs.into_iter().chain(provider.text("default_role").map(str::to_owned))
}

/// What somebody in these groups may do: the first that holds, or what anybody may.
pub fn role_of(provider: &Resource, groups: &[String]) -> Option<String> {
    let texts = provider.texts("roles");
    let mut pairs = texts.iter().filter_map(|text| pair(text));
    let of_group = pairs.find(|(group, _)| groups.iter().any(|of| of == group)).map(|(_, role)| role.to_owned());
    of_group.or_else(|| provider.text("default_role").map(str::to_owned))
}

/// Whether a URL may be asked: over TLS, or on this host.
pub fn may_be_asked(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() || authority.contains('@') || url.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return false;
    }
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    scheme == "https" || scheme == "http" && matches!(host, "localhost" | "127.0.0.1" | "::1")
}

/// Whether a provider of that issuer may lead there: to what is on this host only where it is here itself.
pub fn may_lead_to(issuer: &str, url: &str) -> bool {
    may_be_asked(url) && (url.starts_with("https://") || issuer.starts_with("http://"))
}

fn check(world: &World<'_>, provider: &Resource) -> Result<(), Wrong> {
    let issuer = provider.text("issuer").unwrap_or_default();
    if !may_be_asked(issuer) || issuer.contains(['?', '#']) {
        let detail =
            "it is an https URL without query and fragment, or an http URL of this host (127.0.0.1, localhost)";
        return Err(Wrong::field("issuer", detail));
    }
    if let Some(wrong) = provider.texts("roles").iter().find(|text| pair(text).is_none()) {
        return Err(Wrong::field("roles", format!("each is group=role; {wrong} is not")));
    }
    // Whoever says who its users are could sign in as any of them.
    let users = world.all(Table::User).filter(|user| user.text("provider") == Some(&provider.id));
    for user in users {
        let name = user.text("role").unwrap_or_default();
        if world.role(name).is_some_and(|role| !world.covers(&role)) {
            let detail =
                format!("user {} signs in with it and has the role {name}, which allows more than you may do", user.id);
            return Err(Wrong::field("issuer", detail).of(RefusalCode::Forbidden));
        }
    }
    for name in gives(provider) {
        let of_default = provider.text("default_role") == Some(&name);
        let field = if of_default { "default_role" } else { "roles" };
        let Some(role) = world.role(&name) else {
            let detail = format!("there is no role {name}");
            return Err(Wrong::field(field, detail).of(RefusalCode::Reference));
        };
        if !world.covers(&role) {
            return Err(Wrong::field(field, format!("{name} allows more than you may do")).of(RefusalCode::Forbidden));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_urls_over_tls_or_of_this_host_may_be_asked() {
        for url in
            ["https://id.example", "https://id.example:8443/realms/a", "http://127.0.0.1:9000", "http://[::1]:1/x"]
        {
            assert!(may_be_asked(url), "{url}");
        }
        for url in [
            "http://id.example",
            "ftp://a",
            "https://",
            "https://a@b",
            "http://127.0.0.1.example",
            "https://a b",
            "id.example",
        ] {
            assert!(!may_be_asked(url), "{url}");
        }
    }

    #[test]
    fn the_first_group_that_holds_says_the_role() {
        let provider =
            |fields: Value| Resource::of(Table::IdentityProvider, "t", "corp", serde_json::from_value(fields).unwrap());
        let of = |groups: &[&str], default: Option<&str>| {
            let fields = json!({"roles": ["CN=ops,DC=x=operator", "all=viewer"], "default_role": default});
            role_of(&provider(fields), &groups.iter().map(|g| (*g).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(of(&["all", "CN=ops,DC=x"], None).as_deref(), Some("operator"));
        assert_eq!(of(&["all"], None).as_deref(), Some("viewer"));
        assert_eq!(of(&["other"], None), None);
        assert_eq!(of(&[], Some("helpdesk")).as_deref(), Some("helpdesk"));
    }
}

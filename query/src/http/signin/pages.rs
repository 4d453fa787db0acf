//! The pages of sign-in: nothing but forms and their own style. They work without JavaScript, in 360 pixels.

use std::fmt::Write;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use radarflow_proto::cell::Time;

use super::{elsewhere, second};
use crate::http::resources::encoded;
use crate::http::{Api, Shared};

/// A page: nothing but its own style, in nobody's frame, kept nowhere.
pub(super) fn html(status: StatusCode, title: &str, main: &str) -> Response {
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>{title} · Radarflow</title><link rel=\"stylesheet\" \
         href=\"/sign-in.css\"></head><body><main>{main}</main></body></html>\n"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, page).into_response()
}

/// A text within a page.
pub(super) fn text(value: &str) -> String {
    value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// What is said in red.
fn said_wrong(wrong: Option<&str>) -> String {
    wrong.map_or_else(String::new, |wrong| format!("<p class=\"wrong\" role=\"alert\">{}</p>", text(wrong)))
}

/// Where somebody stands who wants in.
pub(super) struct Door<'a> {
    pub(super) tenant: &'a str,
    pub(super) user: &'a str,
    /// Where they want to.
    pub(super) next: &'a str,
}

/// The form, and the other ways in that the tenant has.
pub(super) fn sign_in_page(api: &Api, status: StatusCode, wrong: Option<&str>, door: &Door<'_>) -> Response {
    let Door { tenant, user, next } = door;
    let wrong = said_wrong(wrong);
    let (tenant_text, next_text) = (text(tenant), text(next));
    let mut main = format!(
        "<h1>Sign in to Radarflow</h1>{wrong}<form method=\"post\" action=\"/sign-in\"><input type=\"hidden\" name=\"next\" \
         value=\"{next_text}\"><label for=\"user\">User</label><input id=\"user\" name=\"user\" value=\"{}\" \
         autocomplete=\"username\" autocapitalize=\"none\" required autofocus><label for=\"password\">Password</label><input \
         id=\"password\" name=\"password\" type=\"password\" autocomplete=\"current-password\" required><label \
         for=\"tenant\">Tenant</label><input id=\"tenant\" name=\"tenant\" value=\"{tenant_text}\" autocomplete=\"organization\" \
         required><button>Sign in</button></form>",
        text(user),
    );
    for provider in api.principals.providers(tenant) {
        let _ = write!(
            main,
            "<p><a class=\"button\" href=\"/sign-in/with?tenant={}&amp;provider={}&amp;next={}\">Sign in with {}</a></p>",
            encoded(tenant),
            encoded(&provider.id),
            encoded(next),
            text(&provider.id)
        );
    }
    if api.mail.is_some() {
        let _ = write!(
            main,
            "<details><summary>Sign in by mail</summary><form method=\"post\" action=\"/sign-in/link/send\"><input \
             type=\"hidden\" name=\"next\" value=\"{next_text}\"><label for=\"mail-user\">User</label><input id=\"mail-user\" \
             name=\"user\" autocomplete=\"username\" autocapitalize=\"none\" required><label \
             for=\"mail-tenant\">Tenant</label><input id=\"mail-tenant\" name=\"tenant\" value=\"{tenant_text}\" \
             required><button>Send a link</button></form></details>"
        );
    }
    html(status, "Sign in", &main)
}

/// The form that asks for the code of an authenticator.
pub(super) fn code_page(status: StatusCode, wrong: Option<&str>, step: &str, next: &str) -> Response {
    let main = format!(
        "<h1>Second factor</h1>{}<form method=\"post\" action=\"/sign-in/code\"><input type=\"hidden\" name=\"step\" \
         value=\"{}\"><input type=\"hidden\" name=\"next\" value=\"{}\">{CODE_INPUT}<button>Sign in</button></form><p><a \
         href=\"/sign-in\">Begin again</a></p>",
        said_wrong(wrong),
        text(step),
        text(next)
    );
    html(status, "Second factor", &main)
}

/// Asks for a code.
const CODE_INPUT: &str = "<label for=\"code\">Code of your authenticator</label><input id=\"code\" name=\"code\" \
     inputmode=\"numeric\" pattern=\"[0-9]{6}\" maxlength=\"6\" autocomplete=\"one-time-code\" required autofocus>";

/// Shows what an authenticator is to know.
pub(super) fn enrol_page(status: StatusCode, wrong: Option<&str>, secret: &str, qr: &str, step: &str) -> Response {
    let main = format!(
        "<h1>Set up an authenticator</h1>{}<p>Scan this with an authenticator app, or type the key into it. Then say the code \
         that it shows.</p><div class=\"qr\">{qr}</div><p><code>{}</code></p><form method=\"post\" \
         action=\"/account/second-factor/confirm\"><input type=\"hidden\" name=\"step\" value=\"{}\">{CODE_INPUT}<button>Ask \
         for codes from now on</button></form><p><a href=\"/account\">Leave it as it is</a></p>",
        said_wrong(wrong),
        text(secret),
        text(step)
    );
    html(status, "Set up an authenticator", &main)
}

/// Says something, with a way on.
pub(super) fn note(status: StatusCode, title: &str, said: &str, to: (&str, &str)) -> Response {
    let main =
        format!("<h1>{}</h1><p>{}</p><p><a href=\"{}\">{}</a></p>", text(title), text(said), text(to.0), text(to.1));
    html(status, title, &main)
}

/// Says why somebody is not let in.
pub(super) fn refused_page(status: StatusCode, said: &str) -> Response {
    let main = format!("<h1>Not signed in</h1>{}<p><a href=\"/sign-in\">Sign in</a></p>", said_wrong(Some(said)));
    html(status, "Not signed in", &main)
}

/// Leads on by the page itself: a cookie that another site must not send is sent with what our own page asks for.
pub(super) fn on(next: &str) -> Response {
    let next = text(next);
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" \
         content=\"0;url={next}\"><title>Signed in · Radarflow</title></head><body><a href=\"{next}\">Go on</a></body></html>\n"
    );
    let mut response = html(StatusCode::OK, "Signed in", "");
    *response.body_mut() = page.into();
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response
}

/// Who is signed in, and where.
pub(super) async fn account(State(api): State<Shared>, headers: HeaderMap) -> Response {
    let Ok(actor) = api.actor(&headers) else { return elsewhere("/sign-in?next=/account", "") };
    let Some(user) = actor.user().and_then(|user| api.principals.user(&actor.tenant, user)) else {
        return elsewhere("/sign-in?next=/account", "");
    };
    let row = |name: &str, value: &str| format!("<dt>{name}</dt><dd>{}</dd>", text(value));
    let shown = |field: &str| user.text(field).filter(|said| !said.is_empty()).unwrap_or("–").to_owned();
    let mut main = format!(
        "<h1>{}</h1><dl>{}{}{}{}</dl><h1>Sessions</h1><ul>",
        text(user.text("display_name").filter(|name| !name.is_empty()).unwrap_or(&user.id)),
        row("User", &user.id),
        row("Tenant", &actor.tenant),
        row("Role", &shown("role")),
        row("Mail", &shown("email")),
    );
    for session in api.principals.sessions(&actor.tenant, &user.id) {
        let this = if session.id == actor.principal.id { " (this one)" } else { "" };
        let _ = write!(
            main,
            "<li>since {} from {}{this}<br><small>{}</small></li>",
            Time(session.created_us),
            text(session.text("address").unwrap_or("?")),
            text(session.text("user_agent").unwrap_or(""))
        );
    }
    main.push_str("</ul><h1>Second factor</h1>");
    main.push_str(&match second::has(&user) {
        true => format!(
            "<p>A code of your authenticator is asked for.</p><form method=\"post\" \
             action=\"/account/second-factor/remove\">{}<button>Ask for none any more</button></form>",
            CODE_INPUT.replace(" autofocus", "")
        ),
        false => {
            let password = "<label for=\"password\">Password</label><input id=\"password\" name=\"password\" \
                            type=\"password\" autocomplete=\"current-password\" required>";
            let password = if user.secrets.contains_key("password") { password } else { "" };
            format!(
                "<p>None.</p><form method=\"post\" action=\"/account/second-factor\">{password}<button>Set up an \
                 authenticator</button></form>"
            )
        }
    });
    main.push_str("<h1>Leave</h1><form method=\"post\" action=\"/sign-out\"><button>Sign out</button></form>");
    html(StatusCode::OK, "Account", &main)
}

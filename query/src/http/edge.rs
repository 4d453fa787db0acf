//! Enrolment: an agent at another place shows the token of its package, once, and gets its certificate.
//!
//! Two ways lead there. Our own agent makes its key itself and sends a request for a certificate; the key never leaves its host.
//! ServiceRadar's command line, and whoever unpacks an archive by hand, get a key that was made here with the certificate; it is
//! kept nowhere else. Which of two requests at once gets it is decided in the dataflow: the package must stand as it was read.
//! Whoever asks with the same key again, within a day and before the agent has connected, lost the answer, and gets another.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use flate2::Compression;
use flate2::write::GzEncoder;
use radarflow_proto::ports::Certified;
use radarflow_proto::resource::{Act, Condition, Fields, Operation, Principal, PrincipalKind, RefusalCode, Resource};
use radarflow_proto::rows::Table;
use radarflow_reconcile::resources::edge::status;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::actor::{hash, new_token};
use crate::http::problem::problem;
use crate::http::request::body;
use crate::http::resources::{Ask, judged, refused};
use crate::http::signin::{From, same, tell_failure};
use crate::http::{Api, Shared};

/// Bears the token of a package, as ServiceRadar's command line sends it.
const TOKEN: HeaderName = HeaderName::from_static("x-serviceradar-download-token");
/// How long a package can be downloaded, microseconds: a day.
const DOWNLOAD_US: i64 = 24 * 3600 * 1_000_000;
/// What the ids of authorities begin with.
const AUTHORITY: &str = "agents";
/// So often a package is read anew that somebody changes meanwhile.
const TRIES: usize = 3;
/// What tokens of packages begin with.
const PREFIX: &str = "edgepkg-v2:";

/// What a package is made with: its id, what is put among its fields, and the token that it is downloaded with.
pub(in crate::http) fn package(api: &Api, fields: &mut Fields) -> (String, String) {
    let id = uuid(rand::random());
    let secret = new_token();
    fields.insert("sha256".to_owned(), json!(hash(&secret)));
    fields.insert("expires_at".to_owned(), json!(now_us() + DOWNLOAD_US));
    let mut said = json!({"pkg": id, "dl": secret});
    if let Some(url) = &api.public_url {
        said["api"] = json!(url);
    }
    let said = said.to_string();
    let signature = URL_SAFE_NO_PAD.encode(api.authorities.sign(said.as_bytes()));
    let token = format!("{PREFIX}{}.{signature}", URL_SAFE_NO_PAD.encode(said));
    (id, token)
}

/// A random number as an id (RFC 9562, version 4).
fn uuid(random: u128) -> String {
    let id = random & !(0xf << 76) & !(0x3 << 62) | 4 << 76 | 2 << 62;
    let hex = format!("{id:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

/// A request of an agent for its certificate.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Enrolling {
    /// A certificate signing request (PKCS #10), PEM. Only its key counts: names are those of the package.
    request: String,
}

/// What an agent needs to connect.
#[derive(Serialize, ToSchema)]
pub(crate) struct EnrolledAgent {
    /// What it is called.
    agent_id: String,
    /// Its partition.
    partition: String,
    /// Where it connects, `host:port`.
    gateway: String,
    /// Its certificate, PEM.
    certificate: String,
    /// The authorities that it believes, PEM.
    authorities: String,
}

/// The key that tokens of packages are signed with.
#[derive(Serialize, ToSchema)]
pub(crate) struct PublicKey {
    /// Ed25519, base64: what ServiceRadar's command line expects as `SERVICERADAR_ONBOARDING_TOKEN_PUBLIC_KEY`.
    public_key: String,
}

/// Tells the key that tokens of packages are verified with.
#[utoipa::path(
    get, path = "/api/edge-packages/public-key", tag = "agents",
    responses((status = 200, description = "The key.", body = PublicKey))
)]
pub(crate) async fn public_key(State(api): State<Shared>, headers: HeaderMap) -> Result<Response, Response> {
    api.actor(&headers)?;
    Ok(axum::Json(PublicKey { public_key: STANDARD.encode(api.authorities.public_key()) }).into_response())
}

/// Enrols the agent of a package, once: it shows the package's token and asks for a certificate of its own key.
#[utoipa::path(
    post, path = "/api/edge-packages/{id}/enroll", tag = "agents", request_body = Enrolling,
    params(("id" = String, Path, description = "The package."),
        ("X-ServiceRadar-Download-Token" = Option<String>, Header, description = "The token of the package.")),
    responses((status = 200, description = "What it needs to connect.", body = EnrolledAgent))
)]
pub(crate) async fn enroll(
    State(api): State<Shared>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Response> {
    let from = From::of(&request);
    let package = shown(&api, &id, request.headers())?;
    let asked: Enrolling = body(request).await?;
    let (gateway, made) = handed(&api, package.clone(), &from, Some(&asked.request)).await?;
    let text = |field| package.text(field).unwrap_or_default().to_owned();
    let Certified { certificate, authorities, .. } = made;
    let (agent_id, partition) = (text("agent_id"), text("site"));
    Ok(axum::Json(EnrolledAgent { agent_id, partition, gateway, certificate, authorities }).into_response())
}

/// Gives the archive of a package, once, as ServiceRadar's command line and its agent expect it: a certificate and its key, the
/// authorities, a configuration, and units to install.
#[utoipa::path(
    post, path = "/api/edge-packages/{id}/bundle", tag = "agents",
    params(("id" = String, Path, description = "The package."),
        ("X-ServiceRadar-Download-Token" = Option<String>, Header, description = "The token of the package.")),
    responses((status = 200, description = "The archive.", body = String, content_type = "application/gzip"))
)]
pub(crate) async fn bundle(
    State(api): State<Shared>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Response> {
    let from = From::of(&request);
    let package = shown(&api, &id, request.headers())?;
    let (gateway, made) = handed(&api, package.clone(), &from, None).await?;
    let name = format!("edge-package-{}", &package.id[..8.min(package.id.len())]);
    let archive = archive(&name, &package, &gateway, &made);
    let archive = archive.map_err(|error| {
        problem(StatusCode::INTERNAL_SERVER_ERROR, "no_archive", &format!("it cannot be packed: {error}"), json!({}))
    })?;
    let file = format!("attachment; filename=\"{name}.tar.gz\"");
    let headers = [(header::CONTENT_TYPE, "application/gzip".to_owned()), (header::CONTENT_DISPOSITION, file)];
    Ok((headers, archive).into_response())
}

/// The package whose token a request shows.
#[allow(clippy::result_large_err)]
fn shown(api: &Shared, id: &str, headers: &HeaderMap) -> Result<Arc<Resource>, Response> {
    let token = headers.get(&TOKEN).and_then(|token| token.to_str().ok()).unwrap_or_default();
    let package = api.authorities.package(id);
    let package = package.filter(|package| {
        package.secrets.get("sha256").is_some_and(|kept| !token.is_empty() && same(kept, &hash(token)))
    });
    let detail = "there is no such package that this token downloads: it is another, or its time is over";
    package.ok_or_else(|| problem(StatusCode::UNAUTHORIZED, "unauthorized", detail, json!({})))
}

/// Hands out the certificate of a package: who comes second gets none. Told is also where its agent connects.
async fn handed(
    api: &Shared,
    mut package: Arc<Resource>,
    from: &From,
    request: Option<&str>,
) -> Result<(String, Certified), Response> {
    let tenant = package.tenant.clone();
    let no_gateway = |detail: String| problem(StatusCode::CONFLICT, "no_gateway", &detail, json!({}));
    let gateway = (api.gateways)(&tenant, package.text("gateway")).map_err(no_gateway)?;
    for _ in 0..TRIES {
        authority(api, &tenant).await?;
        let text = |field| package.text(field).unwrap_or_default();
        let made = api.authorities.certify(&tenant, text("agent_id"), text("site"), request);
        let made = made.map_err(|detail| problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid", &detail, json!({})))?;
        let downloaded_us = allowed(api, from, &package, request.map(|_| made.of_key.as_str()))?;
        let fields = [
            ("downloaded_at", json!(downloaded_us)),
            ("downloaded_by", json!(from.address())),
            ("expires_at", Value::Null),
            ("serial", json!(made.serial)),
            ("fingerprint", json!(made.fingerprint)),
            ("of_key", json!(made.of_key)),
            ("certificate_expires_at", json!(made.not_after_us)),
        ];
        let operation = Operation {
            resource: Table::EdgePackage.name().to_owned(),
            id: package.id.clone(),
            act: Act::Update { fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() },
            condition: Condition::Epoch(package.epoch),
            owner: package.owner.clone(),
        };
        let told = stated(api, &tenant, from, "its package is downloaded", operation).await.map_err(|unknown| {
            let detail = "what became of it is not known yet: run the same command again; of an archive, look whether the \
                          package is downloaded, and revoke it if you have not got it";
            if unknown.status() != StatusCode::SERVICE_UNAVAILABLE {
                return unknown;
            }
            problem(StatusCode::SERVICE_UNAVAILABLE, "catching_up", detail, json!({}))
        })?;
        match told {
            Ok(()) => return Ok((gateway, made)),
            // Somebody changed it meanwhile: as it stands now it can be downloaded, or not.
            Err(refusal) if refusal.status() == StatusCode::PRECONDITION_FAILED => {
                let gone = || problem(StatusCode::GONE, "expired", "this package is gone", json!({}));
                package = api.authorities.package(&package.id).ok_or_else(gone)?;
            }
            Err(refusal) => return Err(refusal),
        }
    }
    Err(problem(StatusCode::CONFLICT, "conflict", "it is changed again and again; try again", json!({})))
}

/// Whether a package can be downloaded as it stands, for a key where the agent made it: when it was first, microseconds since 1970.
#[allow(clippy::result_large_err)]
fn allowed(api: &Shared, from: &From, package: &Resource, of_key: Option<&str>) -> Result<i64, Response> {
    let now_us = now_us();
    let gone = |code, detail: &str| {
        let agent = package.text("agent_id").unwrap_or_default();
        tell_failure(api, from, &package.tenant, agent, format!("edge package {}: {detail}", package.id));
        Err(problem(StatusCode::CONFLICT, code, detail, json!({})))
    };
    let same_key = of_key.is_some() && package.secrets.get("of_key").map(String::as_str) == of_key;
    match (status(package), package.number("downloaded_at")) {
        ("created", _) if package.number("expires_at").is_some_and(|at| at > now_us) => Ok(now_us),
        ("created", _) => {
            Err(problem(StatusCode::GONE, "expired", "this package was not downloaded in time", json!({})))
        }
        ("downloaded", Some(at)) if same_key && at + DOWNLOAD_US > now_us => Ok(at),
        ("revoked", _) => gone("revoked", "it was revoked"),
        _ => gone("downloaded", "it was downloaded already; revoke it if that was not you"),
    }
}

/// Makes a tenant's authority, where it has none that lasts.
async fn authority(api: &Shared, tenant: &str) -> Result<(), Response> {
    if api.authorities.has(tenant) {
        return Ok(());
    }
    let unable = |detail: String| problem(StatusCode::SERVICE_UNAVAILABLE, "no_authority", &detail, json!({}));
    // Of several at once that make one, one does: they are called alike within a day.
    let id = format!("{AUTHORITY}-{}", now_us() / DOWNLOAD_US);
    let made = api.authorities.make(tenant, &id).map_err(unable)?;
    let fields = [
        ("certificate", json!(made.certificate)),
        ("fingerprint", json!(made.fingerprint)),
        ("not_after", json!(made.not_after_us)),
        ("key", json!(made.sealed_key)),
    ];
    let operation = Operation {
        resource: Table::CertificateAuthority.name().to_owned(),
        id,
        act: Act::Create { fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() },
        condition: Condition::Absent,
        owner: String::new(),
    };
    let from = From::nowhere();
    match stated(api, tenant, &from, "the tenant has no authority yet", operation).await? {
        Ok(()) => Ok(()),
        // Somebody was quicker.
        Err(refusal) if refusal.status() == StatusCode::PRECONDITION_FAILED => Ok(()),
        Err(refusal) => Err(refusal),
    }
}

/// Makes the authorities of tenants that listen for enrolled agents, where they have none.
///
/// # Errors
/// Why one cannot be made.
pub async fn authorities(api: &Shared, tenants: impl IntoIterator<Item = &str>) -> Result<(), String> {
    for tenant in tenants {
        authority(api, tenant).await.map_err(|refused| format!("{tenant}: {}", refused.status()))?;
    }
    Ok(())
}

/// Has the program state something.
async fn stated(
    api: &Shared,
    tenant: &str,
    from: &From,
    reason: &str,
    operation: Operation,
) -> Result<Result<(), Response>, Response> {
    let (kind, name) = (PrincipalKind::System, "enrolment".to_owned());
    let principal = Principal { kind, id: String::new(), name, address: from.address() };
    let ask = Ask { principal, reason: reason.to_owned(), operations: vec![operation], force: false, key: None };
    let judgement = judged(api, tenant, ask).await?;
    Ok(match judgement.outcome {
        Ok(_) => Ok(()),
        Err(refusal) if refusal.code == RefusalCode::NotFound => {
            Err(problem(StatusCode::GONE, "expired", "this package is gone", json!({})))
        }
        Err(refusal) => Err(refused(&refusal, judgement.epoch, false)),
    })
}

/// What ServiceRadar's agent reads at its start. Keys that it does not know stop it.
fn configuration(package: &Resource, gateway: &str) -> Value {
    let text = |field| package.text(field).unwrap_or_default();
    let host = gateway.rsplit_once(':').map_or(gateway, |(host, _)| host).trim_matches(['[', ']']);
    json!({
        "agent_id": text("agent_id"),
        "agent_name": text("name"),
        "host_ip": "PLACEHOLDER_HOST_IP",
        "partition": text("site"),
        "gateway_addr": gateway,
        "push_interval": "30s",
        "gateway_security": {
            "mode": "mtls",
            "cert_dir": "/etc/serviceradar/certs",
            "server_name": host,
            "role": "agent",
            "tls": {"cert_file": "component.pem", "key_file": "component-key.pem", "ca_file": "ca-chain.pem"},
        },
    })
}

/// The archive of a package.
fn archive(name: &str, package: &Resource, gateway: &str, made: &Certified) -> std::io::Result<Vec<u8>> {
    let configuration = serde_json::to_string_pretty(&configuration(package, gateway))?;
    let identity = json!({
        "agent_id": package.text("agent_id"),
        "partition": package.text("site"),
        "gateway": gateway,
        "certificate": made.certificate,
        "key": made.key,
        "authorities": made.authorities,
    });
    let identity = serde_json::to_string_pretty(&identity)?;
    let key = made.key.clone().unwrap_or_default();
    let files: [(&str, u32, &str); 8] = [
        ("certs/component.pem", 0o644, &made.certificate),
        ("certs/component-key.pem", 0o600, &key),
        ("certs/ca-chain.pem", 0o644, &made.authorities),
        ("config/config.json", 0o644, &configuration),
        ("radarflow/identity.json", 0o600, &identity),
        ("radarflow/radarflow-agent.service", 0o644, include_str!("edge/radarflow-agent.service")),
        ("install.sh", 0o755, include_str!("edge/install.sh")),
        ("README.md", 0o644, include_str!("edge/README.md")),
    ];
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (path, mode, text) in files {
        let mut head = tar::Header::new_gnu();
        head.set_size(text.len() as u64);
        head.set_mode(mode);
        head.set_mtime(u64::try_from(now_us() / 1_000_000).unwrap_or_default());
        archive.append_data(&mut head, format!("{name}/{path}"), text.as_bytes())?;
    }
    archive.into_inner()?.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_of_version_4() {
        for random in [0, u128::MAX, 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef] {
            let id = uuid(random);
            let parts: Vec<_> = id.split('-').map(str::len).collect();
            assert_eq!(parts, [8, 4, 4, 4, 12], "{id}");
            assert!(id.as_bytes()[14] == b'4' && b"89ab".contains(&id.as_bytes()[19]), "{id}");
        }
    }
}

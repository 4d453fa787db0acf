//! How a connection begins: encryption, cancellation, who it is.
//!
//! ```text
//! [SSLRequest ─► S, TLS | N]  [GSSENCRequest ─► N]  CancelRequest ─► the end
//!                                                   Start ─► password ─► session
//! ```
//! The password is a token, whatever the user's name. It is asked for only where nobody can read it on its way: over TLS, or
//! from this host, or where the configuration says that the way is safe.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use radarflow_reconcile::access::Action;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::actor::{Actor, now_ms};
use crate::engine::sql::CATALOG;
use crate::postgres::limits::Session as Seat;
use crate::postgres::refusal::{BAD_PASSWORD, NOT_LET_IN, PROTOCOL, Refusal};
use crate::postgres::session::Session;
use crate::postgres::settings::Settings;
use crate::postgres::wire::{self, MAX_PASSWORD, Message, Opening, Out};
use crate::postgres::{Securer, Shared};

/// Time that a connection has to show who it is.
pub(crate) const STARTUP: Duration = Duration::from_secs(15);

/// Who comes, and how.
struct Greeted {
    parameters: Vec<(String, String)>,
    minor: u16,
    secure: bool,
}

/// Who may stay.
struct Admitted {
    actor: Actor,
    settings: Settings,
    notices: Vec<String>,
    seat: Seat,
}

/// Serves a connection until it ends.
pub(crate) async fn serve<C>(shared: Arc<Shared>, io: C, peer: IpAddr, securer: Option<Securer<C>>)
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let begun = timeout(STARTUP, begin(&shared, io, peer, securer)).await;
    // What went wrong was the client's doing, and it knows.
    if let Ok(Ok(Some((io, admitted)))) = begun {
        let Admitted { actor, settings, notices, seat } = admitted;
        Session::run(shared, actor, settings, &notices, seat, io).await;
    }
}

async fn begin<C>(
    shared: &Shared,
    mut io: C,
    peer: IpAddr,
    securer: Option<Securer<C>>,
) -> io::Result<Option<(C, Admitted)>>
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let _starting = match shared.limits.start(peer) {
        Ok(starting) => starting,
        Err(refusal) => return end(shared, &mut io, "refused", &refusal).await,
    };
    let (mut secure, mut asked) = (false, 0);
    let greeted = loop {
        // Each may be asked for once, and then it begins.
        asked += 1;
        match Opening::read(&mut io).await? {
            None => return Ok(None),
            Some(Err(refusal)) => return end(shared, &mut io, "refused", &refusal).await,
            Some(Ok(Opening::Cancel { pid, key })) => {
                shared.cancel(pid, key);
                return Ok(None);
            }
            Some(Ok(Opening::Start { minor, parameters })) => break Greeted { parameters, minor, secure },
            Some(Ok(_)) if asked > 2 => return Ok(None),
            Some(Ok(Opening::Secure)) if !secure => match &securer {
                Some(securer) => {
                    io.write_all(b"S").await?;
                    io.flush().await?;
                    io = securer(io).await?;
                    secure = true;
                }
                None => {
                    io.write_all(b"N").await?;
                    io.flush().await?;
                }
            },
            Some(Ok(_)) => {
                io.write_all(b"N").await?;
                io.flush().await?;
            }
        }
    };
    match admit(shared, &mut io, peer, securer.is_some(), greeted).await? {
        Ok(admitted) => {
            shared.limits.metrics.login("ok");
            Ok(Some((io, admitted)))
        }
        Err(refusal) => {
            let outcome = if refusal.code == BAD_PASSWORD { "rejected" } else { "refused" };
            end(shared, &mut io, outcome, &refusal).await
        }
    }
}

async fn admit<C>(
    shared: &Shared,
    io: &mut C,
    peer: IpAddr,
    offered: bool,
    Greeted { parameters, minor, secure }: Greeted,
) -> io::Result<Result<Admitted, Refusal>>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    if !(secure || shared.plaintext || peer.to_canonical().is_loopback()) {
        let hint = if offered { "use sslmode=require" } else { "configure [postgres.tls], or let a proxy do it" };
        return Ok(Err(
            Refusal::new(NOT_LET_IN, "passwords are not taken where they can be read on their way").hint(hint)
        ));
    }
    let mut out = Out::default();
    let unknown = parameters.iter().map(|(name, _)| name.as_str()).filter(|name| name.starts_with("_pq_."));
    let unknown: Vec<&str> = unknown.collect();
    if minor > 0 || !unknown.is_empty() {
        out.negotiate(&unknown);
    }
    out.authentication(3);
    io.write_all(&out.0).await?;
    io.flush().await?;
    let token = match wire::head(io, MAX_PASSWORD).await? {
        None => return Ok(Err(Refusal::new(PROTOCOL, "no password came"))),
        Some(Err(refusal)) => return Ok(Err(refusal)),
        Some(Ok((letter, len))) => {
            let mut body = vec![0; len];
            io.read_exact(&mut body).await?;
            match Message::of(letter, &body) {
                Ok(Message::Password(token)) => token,
                _ => return Ok(Err(Refusal::new(PROTOCOL, "expected a password"))),
            }
        }
    };
    let now = now_ms().max(shared.engine.live().view().clock_ms);
    let Some(actor) = shared.principals.actor(token.trim(), now) else {
        let wait = shared.limits.wrong(peer, Instant::now());
        tracing::debug!(%peer, "a Postgres client came with a password that is no token");
        sleep(wait).await;
        let hint = "the password is a token: rf_…; the user's name may be any";
        return Ok(Err(Refusal::new(BAD_PASSWORD, "the token is unknown, revoked or expired").hint(hint)));
    };
    if !actor.may(Action::Query) {
        return Ok(Err(Refusal::new("42501", "the token's role does not allow this")));
    }
    Ok(welcome(shared, peer, actor, &parameters))
}

fn welcome(shared: &Shared, peer: IpAddr, actor: Actor, parameters: &[(String, String)]) -> Result<Admitted, Refusal> {
    let of = |wanted: &str| parameters.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    // Clients that name no database mean one that is called as the user.
    let database = of("database").filter(|name| !name.is_empty()).or(of("user")).unwrap_or_default();
    if database != CATALOG {
        let detail = format!("database \"{database}\" does not exist");
        return Err(Refusal::new("3D000", detail).hint(format!("the database is called {CATALOG}")));
    }
    if of("replication").is_some_and(|value| !matches!(value, "false" | "off" | "no" | "0")) {
        return Err(Refusal::unsupported("replication"));
    }
    let (mut settings, mut notices) = (Settings::default(), Vec::new());
    let options = of("options").map(options).unwrap_or_default();
    let said = parameters.iter().filter(|(name, _)| {
        !matches!(name.as_str(), "user" | "database" | "options" | "replication") && !name.starts_with("_pq_.")
    });
    for (name, value) in said.chain(&options) {
        notices.extend(settings.set(name, value)?);
    }
    let seat = shared.limits.session(&actor.tenant, peer)?;
    Ok(Admitted { actor, settings, notices, seat })
}

/// Settings on a command line: `-c name=value`, `--name=value`.
fn options(text: &str) -> Vec<(String, String)> {
    let mut words = text.split_whitespace();
    let mut all = Vec::new();
    while let Some(word) = words.next() {
        let setting = match word.strip_prefix("--").or_else(|| word.strip_prefix("-c").filter(|rest| !rest.is_empty()))
        {
            Some(setting) => Some(setting),
            None if word == "-c" => words.next(),
            None => None,
        };
        if let Some((name, value)) = setting.and_then(|setting| setting.split_once('=')) {
            all.push((name.replace('-', "_"), value.replace('\\', "")));
        }
    }
    all
}

/// Says why the connection ends.
async fn end<C, T>(shared: &Shared, io: &mut C, outcome: &'static str, refusal: &Refusal) -> io::Result<Option<T>>
where
    C: AsyncWrite + Unpin,
{
    shared.limits.metrics.login(outcome);
    let mut out = Out::default();
    out.refuse(refusal, "", true);
    io.write_all(&out.0).await?;
    io.shutdown().await?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_settings() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let read = options("-c statement_timeout=5 -cgeqo=off --search-path=public x -c");
        assert_eq!(read, [pair("statement_timeout", "5"), pair("geqo", "off"), pair("search_path", "public")]);
    }
}

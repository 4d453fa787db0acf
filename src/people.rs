//! `radarflow login` and `logout`: a session of a person, kept for later commands; `radarflow user`: what whoever administers
//! the host may do while no server runs.

use std::fs::{self, OpenOptions};
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use radarflow_proto::fact::Fact;
use radarflow_proto::resource::{Act, Command, Condition, Fields, Operation, Principal, PrincipalKind};
use radarflow_proto::rows::Table;
use radarflow_query::actor::passwords;
use radarflow_reconcile::resources::{At as When, kind};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cli::At;
use crate::{api, config, token};

/// A session that is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    url: String,
    token: String,
}

/// Where it is kept.
fn file() -> Result<PathBuf> {
    let folder = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")))
        .context("there is no folder for sessions: set HOME or XDG_CONFIG_HOME")?;
    Ok(folder.join("radarflow").join("session.json"))
}

/// What lets a command in: the token that it is told, or the session that is kept for this server.
pub(crate) fn bearer(at: &At) -> Result<String> {
    if let Some(token) = &at.token {
        return Ok(token.clone());
    }
    let kept = file().ok().and_then(|file| fs::read(file).ok());
    let kept = kept.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
    match kept.filter(|kept| kept.url.trim_end_matches('/') == at.url.trim_end_matches('/')) {
        Some(kept) => Ok(kept.token),
        None => bail!(
            "{} asks for a token: set RADARFLOW_TOKEN (its first start on this host printed one as `admin token: rf_…`, \
             `radarflow token create` makes others), or sign in with `radarflow login`",
            at.url
        ),
    }
}

/// Keeps a session where nobody else reads it.
fn keep(kept: &Kept) -> Result<PathBuf> {
    let file = file()?;
    let folder = file.parent().context("a folder")?;
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    // Made anew: what was there may have been readable.
    let new = file.with_extension("new");
    let _ = fs::remove_file(&new);
    let mut open = OpenOptions::new();
    let mut out =
        open.write(true).create_new(true).mode(0o600).open(&new).with_context(|| new.display().to_string())?;
    out.write_all(&serde_json::to_vec(kept)?)?;
    out.sync_all()?;
    fs::rename(&new, &file)?;
    Ok(file)
}

/// A password: asked for on a terminal, otherwise the first line of what comes in.
fn password(asked: &str) -> Result<String> {
    if std::io::stdin().is_terminal() {
        return rpassword::prompt_password(asked).context("the terminal gives no password");
    }
    let mut said = String::new();
    std::io::stdin().take(4096).read_to_string(&mut said)?;
    Ok(said.lines().next().unwrap_or_default().to_owned())
}

#[derive(Args)]
pub(crate) struct Login {
    /// The user.
    #[arg(long)]
    user: String,
    /// Customer.
    #[arg(long, default_value = "default")]
    tenant: String,
    /// The code of the user's authenticator, where they have one; on a terminal it is asked for.
    #[arg(long)]
    code: Option<String>,
    /// The server.
    #[arg(long, env = "RADARFLOW_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
}

impl Login {
    pub(crate) async fn run(self) -> Result<String> {
        let password = password(&format!("Password of {}: ", self.user))?;
        let Login { user, tenant, code, url } = self;
        let mut body = json!({"tenant": tenant, "user": user, "password": password, "code": code});
        // Nothing is borne yet.
        let at = At { url, token: Some(String::new()) };
        let asks = |body: &Value| {
            Ok::<_, anyhow::Error>(api::request(&at, Method::POST, &["api", "v2", "sign-in"])?.json(body))
        };
        let (status, mut answer) = api::told(&at, asks(&body)?).await?;
        if api::code(&answer) == Some("second_factor_needed") {
            if !std::io::stdin().is_terminal() {
                bail!("{user} has a second factor: say the code of the authenticator with --code");
            }
            eprint!("Code of {user}'s authenticator: ");
            let mut said = String::new();
            std::io::stdin().read_line(&mut said)?;
            body["code"] = json!(said.trim());
            answer = api::answer(&at, asks(&body)?).await?;
        } else {
            answer = api::good(status, answer)?;
        }
        let token = answer["meta"]["token"].as_str().context("the server tells no session")?.to_owned();
        let kept = keep(&Kept { url: at.url, token })?;
        Ok(format!("{user} is signed in; the session is kept in {}", kept.display()))
    }
}

pub(crate) async fn logout(at: &At) -> Result<String> {
    api::answer(at, api::request(at, Method::POST, &["api", "v2", "sign-out"])?).await?;
    if at.token.is_none() {
        fs::remove_file(file()?)?;
    }
    Ok("signed out".to_owned())
}

#[derive(Subcommand)]
pub(crate) enum UserCommand {
    /// Give a user a password, forget their second factor, and make them where there is none of that name. No server may run on the data directory; the
    /// audit tells of it.
    Reset {
        /// The user.
        name: String,
        /// What they may do; of a user that is there it stays as it is without this.
        #[arg(long)]
        role: Option<String>,
        /// Customer.
        #[arg(long, default_value = "default")]
        tenant: String,
        /// Why; for the audit.
        #[arg(long, default_value = "")]
        reason: String,
        /// Where everything is kept.
        #[arg(long, default_value_os_t = config::data_dir())]
        data_dir: PathBuf,
    },
}

impl UserCommand {
    pub(crate) fn run(self) -> Result<String> {
        let UserCommand::Reset { name, role, tenant, reason, data_dir } = self;
        let Some(dir) = token::take(&data_dir)? else {
            bail!("a server runs on {}: an administrator changes users there", data_dir.display());
        };
        let password = password(&format!("New password of {name}: "))?;
        if let Some(weak) = passwords::weak(&password) {
            bail!("{weak}");
        }
        let hash = passwords::hashed_password(&password).context("the password cannot be hashed")?;
        let mut judges = token::standing(&dir)?;
        let known = judges.all(Table::User).any(|user| user.tenant == tenant && user.id == name);
        let mut fields = Fields::from([("password".to_owned(), json!(hash)), ("disabled".to_owned(), json!(false))]);
        fields.extend([("totp".to_owned(), Value::Null), ("totp_step".to_owned(), Value::Null)]);
        match role {
            Some(role) => drop(fields.insert("role".to_owned(), json!(role))),
            None if known => {}
            None => bail!("there is no user {name} in {tenant}; say --role to make one"),
        }
        let act = if known { Act::Update { fields } } else { Act::Create { fields } };
        let resource = Table::User.name().to_owned();
        let operation = Operation { resource, id: name.clone(), act, condition: Condition::Any, owner: String::new() };
        let command = Command {
            tenant: tenant.clone(),
            command_id: String::new(),
            digest: None,
            principal: Principal::of_host(PrincipalKind::Host, "command line"),
            reason,
            force: false,
            operations: vec![operation],
        };
        kind::check_id(&name).map_err(|wrong| anyhow::anyhow!("{wrong}"))?;
        // What the dataflow would refuse is not written down.
        if let Err(refusal) = judges.judge(When { epoch: u64::MAX, now_us: 0 }, &command).outcome {
            bail!("{}", refusal.detail);
        }
        token::append(&dir, &tenant, &Fact::Command(Box::new(command)))?;
        Ok(format!("{name} of {tenant} signs in with this password from the next start on"))
    }
}

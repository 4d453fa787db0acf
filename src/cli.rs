//! The command line.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use radarflow_connectors::disk;
use radarflow_connectors::ledger::{self, DataDir, LedgerError};
use radarflow_connectors::sinks::postgres;
use radarflow_connectors::sources::{SourceError, Stop};
use reqwest::Method;
use tokio::sync::Notify;
use tracing_subscriber::EnvFilter;

use crate::alerts::{AlertmanagerCommand, AlertsCommand, ReceiversCommand, SilenceCommand};
use crate::audit::AuditCommand;
use crate::backup::{Backup, Restore};
use crate::clock::ClockCommand;
use crate::docs::{ConfigCommand, Docs};
use crate::edge::EdgeCommand;
use crate::import::{Import, ServiceRadar};
use crate::jobs::JobsCommand;
use crate::people::{Login, UserCommand};
use crate::resources::{Apply, Create, Delete, Describe, Get};
use crate::routing::RoutingCommand;
use crate::rules::RulesCommand;
use crate::runs::RunsCommand;
use crate::sync::SyncCommand;
use crate::token::TokenCommand;
use crate::whatif::Suppose;
use crate::{
    agent, api, check, config, demo, docs, explain, follow, people, query, replay, routing, rules, serve, status,
    whatif,
};

/// What it was built from.
pub(crate) const COMMIT: &str = env!("RADARFLOW_BUILT_FROM");
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("RADARFLOW_BUILT_FROM"), ")");

/// Network monitoring: inventory, flows, logs and traps through one incremental dataflow.
#[derive(Parser)]
#[command(
    name = "radarflow",
    version = VERSION,
    about,
    max_term_width = 80,
    after_help = "Example: radarflow serve, then in another terminal:\n  RADARFLOW_TOKEN=rf_… radarflow query 'in:devices limit:5'"
)]
struct Cli {
    /// What is logged: error, warn, info, debug, trace; or a filter, as `warn,radarflow_connectors=debug`.
    #[arg(long, env = "RADARFLOW_LOG", global = true, value_name = "LEVEL")]
    log_level: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server. Nothing configured works: data in ./radarflow-data, everything on loopback.
    #[command(after_help = "Example: radarflow serve --data-dir /var/lib/radarflow --config radarflow.toml")]
    Serve {
        /// Configuration file (TOML); without it ./radarflow.toml, if it is there.
        #[arg(long)]
        config: Option<PathBuf>,
        /// Where everything is kept.
        #[arg(long)]
        data_dir: Option<PathBuf>,
        /// Dataflow workers.
        #[arg(long)]
        workers: Option<usize>,
        /// Bring the Postgres schema up to date first.
        #[arg(long)]
        migrate: bool,
    },
    /// Run an agent: it does what the profiles say, and tells a gateway what it finds.
    #[command(
        after_help = "Examples:\n  radarflow agent --data-dir /var/lib/radarflow-agent\n  radarflow agent --gateway http://127.0.0.1:50052 --id edge-1 --partition dc1"
    )]
    Agent(agent::AgentCommand),
    /// Agents at other places: packages by which they are enrolled.
    #[command(subcommand)]
    Edge(EdgeCommand),
    /// Run a server on a temporary directory with a simulated network that sends real packets to it.
    #[command(after_help = "Example: radarflow demo --devices 1000")]
    Demo {
        /// Simulated devices, in two tenants.
        #[arg(long, default_value_t = 1000)]
        devices: usize,
        /// How much faster than life the network acts.
        #[arg(long, default_value_t = 1.0)]
        speed: f64,
        /// End by itself after so many seconds.
        #[arg(long)]
        seconds: Option<u64>,
    },
    /// Ask an SRQL question.
    #[command(
        after_help = "Example: radarflow query 'in:flows time:last_1h stats:\"sum(bytes_total) as bytes by src_endpoint_ip\" limit:10'"
    )]
    Query {
        /// The query.
        srql: String,
        /// It is SQL: a table an entity, with what you may see.
        #[arg(long, conflicts_with = "live")]
        sql: bool,
        /// How to print the answer.
        #[arg(long, value_enum)]
        format: Option<Output>,
        /// Go on: print each row that comes or goes.
        #[arg(long)]
        live: bool,
        /// On a terminal every column, as records where they are too wide for a table.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        at: At,
    },
    /// The audit: who did what.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Routes and silences: tried on the alerts of the past.
    #[command(subcommand)]
    Routing(RoutingCommand),
    /// Rules: tried on the past, or converted from those of other systems.
    #[command(subcommand)]
    Rules(RulesCommand),
    /// What agents do: list it, have it done now, withdraw it.
    #[command(subcommand)]
    Jobs(JobsCommand),
    /// Alerts: list them, take them, say that they are over, and why who is told.
    #[command(
        subcommand,
        after_help = "Examples:\n  radarflow alerts list\n  radarflow alerts ack 0011223344556677-1767614370000"
    )]
    Alerts(AlertsCommand),
    /// Hide alerts for a time.
    #[command(
        subcommand,
        after_help = "Example: radarflow silence add partition=berlin --for 2h --comment 'new switches'"
    )]
    Silence(SilenceCommand),
    /// Receivers of notifications; `radarflow get receivers` lists them.
    #[command(subcommand, after_help = "Example: radarflow receivers replay ops")]
    Receivers(ReceiversCommand),
    /// Take over an Alertmanager's configuration.
    #[command(subcommand, after_help = "Example: radarflow alertmanager convert alertmanager.yml > routing.yaml")]
    Alertmanager(AlertmanagerCommand),
    /// Say why the records of a device are one device, with witnesses.
    #[command(after_help = "Example: radarflow explain sr:14f9ca79-be46-436f-b6b5-9a83ca66a350")]
    Explain {
        /// A device's uid, an older one too.
        uid: String,
        /// Print JSON, from which a graph can be drawn.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: At,
    },
    /// Say what keeps two devices apart, and what they have in common.
    #[command(
        after_help = "Example: radarflow why-not sr:14f9ca79-be46-436f-b6b5-9a83ca66a350 sr:a7ccecf5-25f2-4365-a019-96f9138e65ce"
    )]
    WhyNot {
        /// One device's uid.
        a: String,
        /// The other's.
        b: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: At,
    },
    /// Say which devices would merge, split or be called otherwise, were something else true. Nothing is applied.
    #[command(after_help = "Examples:\n  radarflow what-if --must armis:42 netbox:7\n  \
        radarflow what-if --cannot sr:14f9ca79-be46-436f-b6b5-9a83ca66a350 mac:0CEA1432D278\n  \
        radarflow what-if --policy off")]
    WhatIf {
        #[command(flatten)]
        suppose: Suppose,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: At,
    },
    /// Make, list and revoke tokens.
    #[command(after_help = "Examples:\n  radarflow token create --name grafana --role viewer\n  \
        radarflow token list\n  radarflow token revoke 3f9c1a2b4d5e6f70 --reason 'the laptop was lost'")]
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Sign in, and keep the session for later commands, in the user's configuration folder.
    #[command(after_help = "Examples:\n  radarflow login --user ann\n  radarflow login --user ann < password.txt")]
    Login(Login),
    /// End the session of `radarflow login`.
    Logout {
        #[command(flatten)]
        at: At,
    },
    /// Make a user, or give one another password, on this host while no server runs.
    #[command(after_help = "Example: radarflow user reset ann --role admin")]
    User {
        #[command(subcommand)]
        command: UserCommand,
    },
    /// List resources: users, roles, tokens, sessions, receivers, device_groups; or one of them.
    #[command(after_help = "Examples:\n  radarflow get users\n  radarflow get device_groups -o yaml > groups.yaml")]
    Get(Get),
    /// Say what a kind of resource has and allows; or everything about one, with what was last done to it.
    #[command(after_help = "Examples:\n  radarflow describe users\n  radarflow describe user ann")]
    Describe(Describe),
    /// Make a resource. A token that is made is printed, once.
    #[command(after_help = "Examples:\n  radarflow create user ann role=operator password='correct horse battery'\n  \
        radarflow create token name=grafana role=viewer")]
    Create(Create),
    /// Delete a resource.
    #[command(after_help = "Example: radarflow delete user ann --reason 'left'")]
    Delete(Delete),
    /// Say what applying files of resources would change, under a digest that `apply` takes.
    #[command(after_help = "Example: radarflow diff -f resources/ --owner git --prune")]
    Diff(Apply),
    /// Make resources what files say: all of them, or none.
    #[command(after_help = "Example: radarflow apply -f resources/ --owner git --prune")]
    Apply(Apply),
    /// Push an inventory file to a running server: JSON, JSON a line, or CSV; as one run, taken whole or not at all.
    #[command(after_help = "Examples:\n  radarflow import devices.ndjson --source armis/main\n  \
        radarflow import cmdb.csv --source servicenow/main --mapping cmdb.yaml --complete")]
    Import {
        /// The file: `.json`, `.ndjson`, `.jsonl` or `.csv`.
        file: PathBuf,
        /// The inventory and its instance: `armis/…`, `netbox/…`, or a type of your own.
        #[arg(long, value_name = "NAME/INSTANCE")]
        source: String,
        /// What its columns mean (YAML); without it, items are device updates.
        #[arg(long)]
        mapping: Option<PathBuf>,
        /// It lists everything: what it lacks is withdrawn.
        #[arg(long)]
        complete: bool,
        /// Site of items that name none.
        #[arg(long)]
        partition: Option<String>,
        /// Only say what would change, under a digest that `sync apply` takes.
        #[arg(long)]
        plan: bool,
        #[command(flatten)]
        at: At,
    },
    /// Look at what an inventory would change before it does, then apply exactly that.
    #[command(after_help = "Examples:\n  radarflow sync plan netbox/main\n  \
        radarflow sync apply 1f6c2a7d90b34e5f8a1b2c3d4e5f6071")]
    Sync {
        #[command(subcommand)]
        command: SyncCommand,
    },
    /// Take a ServiceRadar's inventory over from its Postgres: devices, and every name they have had.
    #[command(after_help = "Example: radarflow import-serviceradar --from postgres://reader@db/serviceradar")]
    ImportServiceradar {
        #[command(flatten)]
        from: ServiceRadar,
        #[command(flatten)]
        at: At,
    },
    /// Send the UDP payloads of a capture (pcap, pcapng) to a listener.
    #[command(after_help = "Example: radarflow replay netflow.pcap --to 127.0.0.1:2055 --rate 1000")]
    Replay {
        /// The capture.
        file: PathBuf,
        /// The listener.
        #[arg(long)]
        to: std::net::SocketAddr,
        /// Datagrams a second at most.
        #[arg(long)]
        rate: Option<u64>,
    },
    /// Have a running server write a snapshot now, so that its next start replays less.
    #[command(after_help = "Example: RADARFLOW_TOKEN=rf_… radarflow snapshot")]
    Snapshot {
        #[command(flatten)]
        at: At,
    },
    /// See whether the ledger follows the server's wall clock; have it followed after a leap.
    Clock {
        #[command(subcommand)]
        command: ClockCommand,
    },
    /// Say how a server is: ready, how far its sinks are, its sources, what is wrong with it. Leaves with 1 where somebody
    /// should look.
    #[command(after_help = "Example: radarflow status")]
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: At,
    },
    /// Runs of inventories that are held: list, release, reject.
    #[command(subcommand)]
    Runs(RunsCommand),
    /// Have a running server commit now what waits for the lake.
    #[command(after_help = "Example: radarflow flush")]
    Flush {
        #[command(flatten)]
        at: At,
    },
    /// Write a configuration file to begin with.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Bring the Postgres schema up to date.
    #[command(after_help = "Example: radarflow migrate --url postgres://radarflow@localhost/radarflow")]
    Migrate {
        /// The database; where it is missing, the configuration's.
        #[arg(long)]
        url: Option<String>,
        /// Configuration file (TOML).
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Say everything that is wrong with the configuration, with line and column; see whether what it names answers.
    #[command(
        after_help = "Examples:\n  radarflow check-config --config radarflow.toml\n  radarflow check-config --hardening"
    )]
    CheckConfig {
        /// Configuration file (TOML); without it ./radarflow.toml, if it is there.
        #[arg(long)]
        config: Option<PathBuf>,
        /// Ask nobody over the network.
        #[arg(long)]
        offline: bool,
        /// Say what is open, to whom, and what closes it, in place of what is wrong.
        #[arg(long, conflicts_with = "offline")]
        hardening: bool,
    },
    /// Copy the data directory as it is at one epoch, while the server runs.
    #[command(after_help = "Example: radarflow backup /backup/monday --data-dir /var/lib/radarflow")]
    Backup(Backup),
    /// Make a data directory of a backup.
    #[command(after_help = "Example: radarflow restore /backup/monday --data-dir /var/lib/radarflow")]
    Restore(Restore),
    /// Mend a damaged ledger: only what the damaged frames held is lost. The server must not run.
    #[command(after_help = "Examples:\n  radarflow repair --data-dir /var/lib/radarflow --dry-run\n  \
        radarflow repair --data-dir /var/lib/radarflow")]
    Repair {
        /// Where everything is kept.
        #[arg(long, default_value_os_t = config::data_dir())]
        data_dir: PathBuf,
        /// Only say what is damaged, and what a repair would lose.
        #[arg(long)]
        dry_run: bool,
    },
    /// Print documentation that is made from the program itself.
    #[command(after_help = "Example: radarflow docs srql")]
    Docs {
        /// What about.
        #[arg(value_enum)]
        what: Docs,
    },
    /// Print a script that completes commands in a shell.
    #[command(after_help = "Example: radarflow completions bash > /etc/bash_completion.d/radarflow")]
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the manual, or write a page a command into a folder.
    #[command(after_help = "Examples:\n  radarflow man | man -l -\n  radarflow man /usr/local/share/man/man1")]
    Man {
        /// The folder.
        folder: Option<PathBuf>,
    },
}

/// A running server, and who asks.
#[derive(clap::Args)]
pub(crate) struct At {
    /// The server.
    #[arg(long, env = "RADARFLOW_URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// The token; without it, the session of `radarflow login`.
    #[arg(long, env = "RADARFLOW_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
    Ndjson,
    Csv,
    Arrow,
    Parquet,
}

/// Parses, runs, says what went wrong.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    let filter = match filter(cli.log_level.as_deref()) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("radarflow: --log-level: {error}");
            return ExitCode::from(2);
        }
    };
    // Files and pipes get no colours, nor does who wants none (https://no-color.org).
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|said| said.is_empty());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    match dispatch(cli.command) {
        Ok(code) => code,
        // Whoever read what it prints has read enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("radarflow: {}", told(&error));
            // What the operator has to change, apart from what merely failed.
            let setup = error.downcast_ref::<LedgerError>().is_some()
                || error.downcast_ref::<SourceError>().is_some()
                || error.chain().any(|e| e.downcast_ref::<std::io::Error>().is_some());
            ExitCode::from(if setup { 2 } else { 1 })
        }
    }
}

/// What is logged: of a level the program's own, and of others what is worse.
fn filter(said: Option<&str>) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    const OTHERS: &str = "buoyant_kernel=off,deltalake_core=error";
    match said.map(str::trim).unwrap_or_default() {
        "" => EnvFilter::try_new(format!("warn,radarflow=info,{OTHERS}")),
        "off" => EnvFilter::try_new("off"),
        "error" => EnvFilter::try_new(format!("error,{OTHERS}")),
        level @ ("warn" | "info" | "debug" | "trace") => EnvFilter::try_new(format!("warn,radarflow={level},{OTHERS}")),
        filter => EnvFilter::try_new(filter),
    }
}

/// An error and its causes; one that says what its cause says says it once.
pub(crate) fn told(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if told.is_empty() {
            told = cause;
        } else if !told.ends_with(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    told
}

/// Whether nobody reads its output any more. Errors of connections bear what they were about.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
        && error.chain().count() == 1
}

fn dispatch(command: Command) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match command {
        Command::Serve { config, data_dir, workers, migrate } => {
            let load = || -> Result<config::Config> {
                let mut loaded = config::load(config.as_deref())?;
                loaded.data_dir = data_dir.clone().unwrap_or(loaded.data_dir);
                loaded.workers = workers.unwrap_or(loaded.workers);
                Ok(loaded)
            };
            runtime.block_on(serve_until_told(load, migrate))?;
        }
        Command::Agent(agent::AgentCommand { step: Some(agent::Step::Enroll(enroll)), .. }) => {
            say(&runtime.block_on(enroll.run())?)?;
        }
        Command::Agent(agent::AgentCommand { step: None, said }) => {
            runtime.block_on(agent_until_told(said.settings()?))?;
        }
        Command::Edge(command) => say(&runtime.block_on(command.run())?)?,
        Command::Demo { devices, speed, seconds } => runtime.block_on(demo::run(devices, speed, seconds))?,
        Command::Query { srql, format, live: true, at, .. } => {
            let ndjson = format.map_or(!std::io::stdout().is_terminal(), |f| f != Output::Table);
            runtime.block_on(follow::follow(&srql, &at, ndjson))?;
        }
        Command::Query { srql, sql, format, live: false, all, at } => {
            return runtime.block_on(query::query(&srql, sql, format, all, &at));
        }
        Command::Jobs(command) => say(&runtime.block_on(command.run())?)?,
        Command::Audit(command) => say(&runtime.block_on(command.run())?)?,
        Command::Alerts(command) => say(&runtime.block_on(command.run())?)?,
        Command::Silence(command) => say(&runtime.block_on(command.run())?)?,
        Command::Receivers(command) => say(&runtime.block_on(command.run())?)?,
        Command::Alertmanager(command) => say(&command.run()?)?,
        Command::Explain { uid, json, at } => runtime.block_on(explain::explain(&uid, &at, json))?,
        Command::WhyNot { a, b, json, at } => runtime.block_on(explain::why_not(&a, &b, &at, json))?,
        Command::WhatIf { suppose, json, at } => runtime.block_on(whatif::what_if(&suppose, &at, json))?,
        Command::Token { command } => say(&runtime.block_on(command.run())?)?,
        Command::Login(login) => say(&runtime.block_on(login.run())?)?,
        Command::Logout { at } => say(&runtime.block_on(people::logout(&at))?)?,
        Command::User { command } => say(&command.run()?)?,
        Command::Get(get) => say(runtime.block_on(get.run())?.trim_end())?,
        Command::Describe(describe) => say(runtime.block_on(describe.run())?.trim_end())?,
        Command::Create(create) => say(&runtime.block_on(create.run())?)?,
        Command::Delete(delete) => say(&runtime.block_on(delete.run())?)?,
        Command::Diff(apply) => say(&runtime.block_on(apply.diff())?)?,
        Command::Apply(apply) => say(&runtime.block_on(apply.run())?)?,
        Command::Import { file, source, mapping, complete, partition, plan, at } => {
            let import = Import { file, source, mapping, complete, partition, plan };
            say(&runtime.block_on(import.run(&at))?)?;
        }
        Command::Routing(command) => runtime.block_on(routing::run(&command))?,
        Command::Rules(command) => runtime.block_on(rules::run(&command))?,
        Command::Sync { command } => say(&runtime.block_on(command.run())?)?,
        Command::ImportServiceradar { from, at } => say(&format!("taken over: {}", runtime.block_on(from.run(&at))?))?,
        Command::Replay { file, to, rate } => {
            say(&replay::replay(&file, to, rate)?.to_string())?;
        }
        Command::Snapshot { at } => runtime.block_on(async {
            let answer = api::answer(&at, api::request(&at, Method::POST, &["api", "snapshot"])?).await?;
            say(&format!("a snapshot of epoch {}", answer["epoch"]))
        })?,
        Command::Flush { at } => runtime.block_on(async {
            let answer = api::answer(&at, api::request(&at, Method::POST, &["api", "flush"])?).await?;
            say(&format!("the lake has everything up to epoch {}", answer["epoch"]))
        })?,
        Command::Status { json, at } => {
            let (text, code) = runtime.block_on(status::status(&at, json))?;
            say(&text)?;
            return Ok(code);
        }
        Command::Runs(command) => say(&runtime.block_on(command.run())?)?,
        Command::Config(command) => say(&command.run()?)?,
        Command::Clock { command } => say(&runtime.block_on(command.run())?)?,
        Command::Migrate { url, config } => {
            let url = match url {
                Some(url) => url,
                None => {
                    config::load(config.as_deref())?
                        .sinks
                        .postgres
                        .context("no Postgres is configured; give --url")?
                        .url
                }
            };
            runtime.block_on(postgres::migrate(&url))?;
            say("the schema is up to date")?;
        }
        Command::CheckConfig { config, hardening: true, .. } => say(&check::hardening(config.as_deref())?)?,
        Command::CheckConfig { config, offline, .. } => {
            say(&runtime.block_on(check::check(config.as_deref(), offline))?)?;
        }
        Command::Backup(backup) => say(&runtime.block_on(backup.run())?)?,
        Command::Restore(restore) => say(&restore.run()?)?,
        Command::Repair { data_dir, dry_run } => {
            anyhow::ensure!(data_dir.join(ledger::LOG).is_dir(), "{} holds no ledger", data_dir.display());
            let dir = DataDir::take(&data_dir)?;
            match ledger::repair(&disk::os(), dir.root(), dry_run)? {
                Some(done) => say(&done.to_string())?,
                None => say("nothing is damaged")?,
            }
        }
        Command::Docs { what } => say(&runtime.block_on(what.print())?)?,
        Command::Completions { shell } => say(&docs::completions(shell, Cli::command()))?,
        Command::Man { folder } => say(&docs::man(folder.as_deref(), Cli::command())?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}

async fn serve_until_told(load: impl Fn() -> Result<config::Config>, migrate: bool) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let config = load()?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let server = serve::start(&config, migrate).await?;
    for (name, addr) in server.listening.named() {
        say(&format!("listening: {name} {addr}"))?;
    }
    if let Some(token) = &server.first_token {
        say(&format!("admin token: {token}"))?;
    }
    say(&format!("ready: {}", server.url))?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload(&server, &config, load()).await,
        }
    }
    tracing::info!("stopping");
    server.stop().await
}

/// Takes over what may change while the server runs; what is wrong with the configuration changes nothing.
async fn agent_until_told(settings: agent::Settings) -> Result<()> {
    let (tell, stop) = Stop::new();
    let mut ended = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut hung_up = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
    let renew = Arc::new(Notify::new());
    let mut running = tokio::spawn(agent::run(settings, renew.clone(), stop));
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            _ = ended.recv() => break,
            Some(()) = hung_up.recv() => renew.notify_one(),
            done = &mut running => return done?,
        }
    }
    let _ = tell.send(true);
    running.await?
}

async fn reload(server: &serve::Server, began: &config::Config, loaded: Result<config::Config>) {
    let changes = async {
        let config = loaded?;
        let changes = server.reload(&config).await?;
        Ok::<_, anyhow::Error>((changes, config.differs_for_good(began)))
    };
    match changes.await {
        Ok((changes, restart)) => {
            let mut lines = vec![format!("reloaded: {} changes", changes.len())];
            lines.extend(changes.into_iter().map(|change| format!("  {change}")));
            if restart {
                lines.push(
                    "  listeners, paths, sources or limits are configured otherwise: that needs a start".to_owned(),
                );
            }
            // Nobody may be reading.
            let _ = say(&lines.join("\n"));
        }
        Err(error) => tracing::error!("the configuration is as it was: {error:#}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(command: &clap::Command, each: &mut impl FnMut(&clap::Command)) {
        each(command);
        command.get_subcommands().for_each(|inner| all(inner, each));
    }

    #[test]
    fn every_command_has_help_that_fits_and_the_ones_that_do_something_an_example() {
        let mut root = Cli::command();
        root.build();
        let mut wide = Vec::new();
        all(&root, &mut |command| {
            let text = command.clone().render_long_help().to_string();
            let lines = text.lines().filter(|line| line.chars().count() > 80);
            wide.extend(lines.map(|line| format!("{}: {line}", command.get_name())));
            assert!(command.get_about().is_some(), "{} says nothing of itself", command.get_name());
        });
        // Examples are to be copied: they are not broken.
        wide.retain(|line| !line.contains("radarflow "));
        assert_eq!(wide, Vec::<String>::new());
    }

    #[test]
    fn a_cause_is_told_once() {
        let cause = std::io::Error::other("no room");
        let error = anyhow::Error::from(LedgerError::Io { path: "/x".into(), source: cause }).context("cannot open");
        assert_eq!(told(&error), "cannot open: /x: no room");
    }

    #[test]
    fn completions_and_the_manual_are_of_every_command() {
        let names: Vec<String> = Cli::command().get_subcommands().map(|c| c.get_name().to_owned()).collect();
        let script = docs::completions(clap_complete::Shell::Bash, Cli::command());
        assert!(names.iter().all(|name| script.contains(name.as_str())));
        let folder = tempfile::tempdir().unwrap();
        docs::man(Some(folder.path()), Cli::command()).unwrap();
        for name in names {
            assert!(folder.path().join(format!("radarflow-{name}.1")).exists(), "{name}");
        }
    }
}

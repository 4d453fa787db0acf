//! What the program tells of itself, made from itself: `docs`, `completions`, `man`, `config init`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Command, Subcommand, ValueEnum};
use clap_complete::Shell;
use radarflow_proto::lake::LakeTable;
use radarflow_proto::rows::Table;
use reqwest::Method;

use crate::cli::At;
use crate::config::{self, Config};
use crate::memory::Budget;
use crate::{api, bounds, serve};

/// Every key there is, with its default or an example.
const EXAMPLE: &str = include_str!("../deploy/radarflow.example.toml");

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Docs {
    /// Entities and fields.
    Srql,
    /// Tables and columns of the lake.
    Lake,
    /// Tables and columns of Postgres.
    Postgres,
    /// Keys of the configuration.
    Config,
    /// Metrics of `/metrics`.
    Metrics,
    /// Bounds on memory, on this machine under the default configuration.
    Memory,
}

impl Docs {
    pub(crate) async fn print(self) -> Result<String> {
        Ok(match self {
            Docs::Srql => radarflow_query::srql::docs::srql(),
            Docs::Memory => bounds::docs(&Budget::new(None)?, &Config::default()),
            Docs::Lake => lake(),
            Docs::Postgres => postgres(),
            Docs::Config => EXAMPLE.trim_end().to_owned(),
            Docs::Metrics => metrics().await?,
        })
    }
}

fn lake() -> String {
    let mut out = String::new();
    for table in LakeTable::all() {
        out.push_str(&format!("## {}\n{}\n\n", table.name(), table.doc()));
        for ((name, doc), field) in table.columns().iter().zip(table.schema().fields()) {
            out.push_str(&format!("- `{name}` ({}): {doc}\n", field.data_type()));
        }
        out.push('\n');
    }
    out
}

fn postgres() -> String {
    let mut out = "Tables of the schema `radarflow`. `radarflow migrate` makes them.\n\n".to_owned();
    for table in Table::ALL.iter().filter(|table| !table.postgres().is_empty()) {
        out.push_str(&format!("## radarflow.{}\n{}\n", table.postgres(), table.doc()));
        out.push_str(&format!("Key: {}.\n\n", table.key().join(", ")));
        for column in table.columns() {
            out.push_str(&format!("- `{}`: {}\n", column.name, column.doc));
        }
        out.push('\n');
    }
    out
}

/// Metrics are known where they are measured: a server is started that nobody reaches, and asked.
async fn metrics() -> Result<String> {
    let dir = tempfile::tempdir()?;
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = Config { data_dir: dir.path().to_owned(), workers: 1, disk_reserve_mib: 0, ..Config::default() };
    config.http.addr = any;
    config.postgres = Some(config::Postgres { addr: any, tls: None, plaintext: false });
    config.grpc.iter_mut().for_each(|gateway| gateway.addr = any);
    for sockets in [&mut config.netflow, &mut config.sflow, &mut config.syslog, &mut config.traps] {
        sockets.truncate(1);
        sockets.iter_mut().for_each(|socket| socket.addr = any);
    }
    config.otlp.iter_mut().for_each(|otlp| otlp.addr = any);
    let server = serve::start(&config, false).await?;
    // Some are told of once something happened.
    let at = At { url: server.url.clone(), token: server.first_token.clone() };
    let query = serde_json::json!({"query": "in:devices"});
    api::answer(&at, api::request(&at, Method::POST, &["api", "query"])?.json(&query)).await?;
    let text = reqwest::get(format!("{}/metrics", server.url)).await?.text().await?;
    server.stop().await?;
    let mut out = String::new();
    let (mut kind, mut unit) = ("", "");
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(name), Some(help)) => {
                // Help comes first, then what kind it is.
                out.push_str(&format!("- `{name}`: {}\n", help.trim_end_matches('.')));
                (kind, unit) = ("", "");
            }
            (Some("#"), Some("TYPE"), Some(_), Some(said)) => kind = said,
            (Some("#"), Some("UNIT"), Some(_), Some(said)) => unit = said,
            _ => continue,
        }
        if !kind.is_empty() && out.ends_with('\n') && !out.ends_with(")\n") {
            out.truncate(out.len() - 1);
            let suffix = if kind == "counter" { "; read it as `…_total`" } else { "" };
            let unit = if unit.is_empty() { String::new() } else { format!(", {unit}") };
            out.push_str(&format!(" ({kind}{unit}{suffix})\n"));
        }
    }
    if out.is_empty() {
        bail!("the server tells no metrics");
    }
    Ok(out.trim_end().to_owned())
}

/// A script that completes commands.
pub(crate) fn completions(shell: Shell, mut command: Command) -> String {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut command, "radarflow", &mut out);
    String::from_utf8_lossy(&out).trim_end().to_owned()
}

/// The manual: a page a command into a folder, or the first page to be read now.
pub(crate) fn man(folder: Option<&Path>, command: Command) -> Result<String> {
    let Some(folder) = folder else {
        let mut out = Vec::new();
        clap_mangen::Man::new(command).render(&mut out)?;
        return Ok(String::from_utf8_lossy(&out).trim_end().to_owned());
    };
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    clap_mangen::generate_to(command, folder).with_context(|| folder.display().to_string())?;
    Ok(format!("the manual is in {}", folder.display()))
}

#[derive(Subcommand)]
pub(crate) enum ConfigCommand {
    /// Write a configuration file with every key; what is not the default is commented out.
    #[command(after_help = "Example: radarflow config init")]
    Init {
        /// The file.
        #[arg(default_value = config::FILE)]
        file: PathBuf,
        /// Where everything is kept.
        #[arg(long)]
        data_dir: Option<PathBuf>,
    },
}

impl ConfigCommand {
    pub(crate) fn run(self) -> Result<String> {
        let ConfigCommand::Init { file, data_dir } = self;
        let text = initial(data_dir.as_deref());
        let open = std::fs::OpenOptions::new().write(true).create_new(true).open(&file);
        let mut out = open.with_context(|| format!("cannot make {}", file.display()))?;
        out.write_all(text.as_bytes())?;
        let file = file.display();
        Ok(format!("{file} has every key, commented out; `radarflow check-config --config {file}` says what is wrong"))
    }
}

/// The example, of which nothing holds but the folder.
fn initial(data_dir: Option<&Path>) -> String {
    let mut out = String::new();
    for line in EXAMPLE.lines() {
        match data_dir {
            Some(dir) if line.starts_with("data_dir = ") => {
                out.push_str(&format!("data_dir = {:?}\n", dir.display().to_string()));
            }
            _ if line.is_empty() || line.starts_with('#') => out.push_str(&format!("{line}\n")),
            _ => out.push_str(&format!("# {line}\n")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_configuration_is_the_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("radarflow.toml");
        let init = |data_dir| ConfigCommand::Init { file: file.clone(), data_dir }.run();
        init(Some(PathBuf::from("/var/lib/x"))).unwrap();
        let config = config::load(Some(&file)).unwrap();
        assert_eq!(config.data_dir, Path::new("/var/lib/x"));
        let default = Config { data_dir: config.data_dir.clone(), ..Config::default() };
        assert_eq!(format!("{config:?}"), format!("{default:?}"));
        assert!(init(None).is_err(), "what is there is not overwritten");
    }

    #[test]
    fn postgres_and_the_lake_are_told_whole() {
        let told = postgres();
        for table in Table::ALL.iter().filter(|table| !table.postgres().is_empty()) {
            assert!(told.contains(&format!("## radarflow.{}\n", table.postgres())));
        }
        assert!(lake().contains("## flows\n"));
    }
}

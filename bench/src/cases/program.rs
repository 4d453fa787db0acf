//! The `radarflow` program that is measured: the one beside this benchmark, and with `RADARFLOW_BENCH_BESIDE` another of
//! any version, so that both have their figures from one run.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// A program, and what its figures begin with.
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    path: PathBuf,
}

impl Measured {
    /// What is to be measured.
    pub(crate) fn all() -> Result<Vec<Measured>> {
        let ours = Measured { name: "", path: std::env::current_exe()?.with_file_name("radarflow") };
        let other = std::env::var_os("RADARFLOW_BENCH_BESIDE");
        Ok(other.map(|path| Measured { name: "beside, ", path: path.into() }).into_iter().chain([ours]).collect())
    }

    /// Starts it; `more` is added to its configuration.
    pub(crate) fn start(&self, dir: &Path, more: &str) -> Result<Program> {
        let config = dir.join("radarflow.toml");
        let listeners = ["netflow", "sflow", "syslog", "traps", "grpc", "otlp"]
            .map(|l| format!("[[{l}]]\naddr = \"127.0.0.1:0\"\n"));
        std::fs::write(&config, format!("{}[http]\naddr = \"127.0.0.1:0\"\n{more}", listeners.concat()))?;
        let child = Command::new(&self.path)
            .args(["serve", "--workers", "2", "--config"])
            .arg(config)
            .arg("--data-dir")
            .arg(data(dir))
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} cannot be started", self.path.display()))?;
        let mut started = Program {
            path: self.path.clone(),
            http: String::new(),
            ports: HashMap::new(),
            token: None,
            client: reqwest::Client::new(),
            child,
        };
        let stdout = started.child.stdout.take().context("piped")?;
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            if let Some((name, addr)) = line.strip_prefix("listening: ").and_then(|l| l.split_once(' ')) {
                started.ports.insert(name.to_owned(), addr.parse()?);
            } else if let Some(token) = line.strip_prefix("admin token: ") {
                started.token = Some(token.to_owned());
            } else if let Some(http) = line.strip_prefix("ready: ") {
                started.http = http.to_owned();
                return Ok(started);
            }
        }
        anyhow::bail!("it ended before it was ready")
    }
}

/// Where a program that was started in a directory keeps its data.
pub(crate) fn data(dir: &Path) -> PathBuf {
    dir.join("data")
}

/// One that runs; it is killed when it is dropped.
pub(crate) struct Program {
    path: PathBuf,
    pub(crate) http: String,
    pub(crate) ports: HashMap<String, SocketAddr>,
    /// Printed by a first start.
    pub(crate) token: Option<String>,
    client: reqwest::Client,
    child: Child,
}

impl Program {
    pub(crate) async fn ask(&self, token: &str, query: &str) -> Result<Value> {
        let request =
            self.client.post(format!("{}/api/query", self.http)).bearer_auth(token).json(&json!({"query": query}));
        Ok(request.send().await?.json().await?)
    }

    /// The number in the first row of an answer that is called `n`.
    pub(crate) async fn count(&self, token: &str, query: &str) -> Result<u64> {
        Ok(self.ask(token, query).await?["results"][0]["n"].as_u64().unwrap_or(0))
    }

    /// Waits until a count stands still or has its goal: what comes no more was lost. Tells it, and since when it was so.
    pub(crate) async fn settle(&self, token: &str, query: &str, goal: u64) -> Result<(u64, Instant)> {
        let (mut last, mut since) = (0, Instant::now());
        loop {
            let n = self.count(token, query).await?;
            if n != last {
                (last, since) = (n, Instant::now());
            }
            if n >= goal || since.elapsed() > Duration::from_secs(10) {
                return Ok((last, since));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until a table of the lake has committed every epoch that is complete now.
    pub(crate) async fn committed(&self, table: &str) -> Result<Instant> {
        let goal = self.metric("radarflow_dataflow_epoch").await?;
        while self.metric(&format!("radarflow_lake_table_epoch{{table=\"{table}\"}}")).await? < goal {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(Instant::now())
    }

    pub(crate) async fn metric(&self, name: &str) -> Result<u64> {
        let text = self.client.get(format!("{}/metrics", self.http)).send().await?.text().await?;
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse().ok());
        line.with_context(|| format!("no metric {name}"))
    }

    /// Brings an inventory in, as its own command line does.
    pub(crate) fn import(&self, token: &str, file: &Path) -> Result<()> {
        let imported = Command::new(&self.path)
            .args(["import", "--source", "armis/main", "--token", token, "--url"])
            .arg(&self.http)
            .arg(file)
            .stdout(Stdio::null())
            .status()?;
        anyhow::ensure!(imported.success(), "the import failed");
        Ok(())
    }

    pub(crate) fn resident_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let kib = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
        kib.unwrap_or(0.0) / 1024.0
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends at a steady rate, datagrams a second; tells how long it took.
pub(crate) fn send(to: SocketAddr, datagrams: &[Vec<u8>], n: usize, rate: f64) -> Result<Duration> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let started = Instant::now();
    for i in 0..n {
        let due = Duration::from_secs_f64(i as f64 / rate);
        while started.elapsed() < due {
            std::thread::sleep(due.saturating_sub(started.elapsed()).min(Duration::from_millis(1)));
        }
        socket.send_to(&datagrams[i % datagrams.len()], to)?;
    }
    Ok(started.elapsed())
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
}

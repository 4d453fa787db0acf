//! Tells an Armis which of its devices answer: a custom property of each, true or false, written when it changes.
//!
//! What Armis took is kept in a file in the data directory, a line a value, so that nothing is written again after a
//! start. It is no ledger: what is lost of it is written once more, which changes nothing. A batch that Armis refuses is
//! tried again at the next turn, and an alert tells (`write-back-failed`); the other batches are written meanwhile.
//! Values that came and went between two turns are not told.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use radarflow_proto::fact::{Fact, OwnCondition};
use radarflow_proto::ports::AppendError;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::sources::Stop;
use crate::sources::inventory::Runs;
use crate::sources::pull::armis::{Config, Session};
use crate::sources::pull::{Client, PullError, TRIES, read};

/// The rule of the alert that Armis does not take what it is told.
pub const FAILED: &str = "write-back-failed";
/// Devices of one request.
const BATCH: usize = 500;
/// Lines of the file that may be out of date.
const STALE_LINES: usize = 1000;

/// What is written back.
#[derive(Clone, Debug)]
pub struct WriteBack {
    /// The custom property.
    pub property: String,
    /// Time between two turns.
    pub every: Duration,
}

/// Whether the devices that hold the identifiers of a tenant's Armis answer; of those that is known of.
pub type Availability = Arc<dyn Fn(&str, &str) -> BTreeMap<u64, bool> + Send + Sync>;

/// What Armis took, in a file of lines `id value`.
struct Taken {
    path: PathBuf,
    values: BTreeMap<u64, bool>,
    lines: usize,
}

impl Taken {
    fn open(path: PathBuf) -> Taken {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let value = |line: &str| {
            let (id, value) = line.split_once(' ')?;
            Some((id.parse().ok()?, value.parse().ok()?))
        };
        // A torn line is none; its value is written again.
        let values = text.lines().filter_map(value).collect();
        Taken { path, values, lines: text.lines().count() }
    }

    fn text<'a>(values: impl IntoIterator<Item = (&'a u64, &'a bool)>) -> String {
        values.into_iter().map(|(id, value)| format!("{id} {value}\n")).collect()
    }

    fn note(&mut self, batch: &BTreeMap<u64, bool>) -> std::io::Result<()> {
        self.values.extend(batch);
        self.lines += batch.len();
        if self.lines > 2 * self.values.len() + STALE_LINES {
            let new = self.path.with_extension("new");
            std::fs::write(&new, Self::text(&self.values))?;
            std::fs::rename(&new, &self.path)?;
            self.lines = self.values.len();
            return Ok(());
        }
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&self.path)?;
        file.write_all(Self::text(batch).as_bytes())
    }
}

struct Writer {
    config: Config,
    what: WriteBack,
    availability: Availability,
    client: Client,
    taken: Taken,
    runs: Runs,
}

/// Writes from now on, until told to stop. `dir` keeps what was taken.
///
/// # Errors
/// Where no HTTP client can be made, or what was taken cannot be read.
pub fn start(
    config: Config,
    what: WriteBack,
    dir: &Path,
    availability: Availability,
    runs: Runs,
    stop: Stop,
) -> std::io::Result<()> {
    let dir = dir.join(&config.common.tenant);
    std::fs::create_dir_all(&dir)?;
    let taken = Taken::open(dir.join(format!("armis-{}", config.common.name)));
    let client = Client::new(&config.common, TRIES, stop.clone()).map_err(std::io::Error::other)?;
    tokio::spawn(Writer { config, what, availability, client, taken, runs }.run(stop));
    Ok(())
}

impl Writer {
    async fn run(mut self, mut stop: Stop) {
        let mut failing = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.what.every) => {}
                () = stop.told() => return,
            }
            let failed = match self.turn().await {
                Ok(()) => None,
                Err(PullError::Stopped | PullError::Append(AppendError::Closed)) => return,
                Err(error) => Some(error.to_string()),
            };
            if let Some(error) = &failed {
                tracing::warn!(source = self.config.common.name, error, "Armis does not take what it is told");
            }
            if failing != Some(failed.is_some()) && self.tell(failed.as_deref()).await {
                failing = Some(failed.is_some());
            }
        }
    }

    /// Writes what changed.
    async fn turn(&mut self) -> Result<(), PullError> {
        let (availability, common) = (self.availability.clone(), self.config.common.clone());
        // It looks at every device.
        let now = tokio::task::spawn_blocking(move || availability(&common.tenant, &common.name));
        let Ok(now) = now.await else { return Err(PullError::Stopped) };
        let changed: Vec<(u64, bool)> =
            now.into_iter().filter(|(id, value)| self.taken.values.get(id) != Some(value)).collect();
        let mut session = Session::new(&self.config, self.client.clone());
        let mut failed = Ok(());
        for batch in changed.chunks(BATCH) {
            match self.write(&mut session, batch).await {
                Ok(()) => {
                    if let Err(error) = self.taken.note(&batch.iter().copied().collect()) {
                        tracing::warn!(%error, path = %self.taken.path.display(), "cannot keep what Armis took");
                    }
                }
                Err(error @ PullError::Stopped) => return Err(error),
                Err(error) => failed = Err(error),
            }
        }
        failed
    }

    async fn write(&self, session: &mut Session<'_>, batch: &[(u64, bool)]) -> Result<(), PullError> {
        let url = self.client.url("/api/v1/devices/custom-properties/_bulk/", &[]);
        let device = |(id, value): &(u64, bool)| json!({"id": id, "customProperties": {&self.what.property: value}});
        let body: Vec<Value> = batch.iter().map(device).collect();
        let (status, said) = session.ask(&url, |http| http.post(url.clone()).json(&body)).await?;
        if status == StatusCode::NO_CONTENT {
            return Ok(());
        }
        read::<serde::de::IgnoredAny>(&url, status, &said).map(drop)
    }

    /// Says whether Armis takes it; tells whether that is durable.
    async fn tell(&self, failed: Option<&str>) -> bool {
        let common = &self.config.common;
        let entity = format!("armis/{}", common.name);
        let condition = OwnCondition {
            tenant: common.tenant.clone(),
            rule: FAILED.to_owned(),
            severity: "warning".to_owned(),
            title: format!("{entity} does not take what it is told"),
            description: failed.unwrap_or_default().to_owned(),
            holds: failed.is_some(),
            entity,
        };
        self.runs.say(&common.tenant, &Fact::Condition(condition)).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_is_known_after_a_start_and_does_not_pile_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("armis-t-main");
        let mut taken = Taken::open(path.clone());
        for turn in 0..600u64 {
            taken.note(&BTreeMap::from([(1, turn % 2 == 0), (2, true), (turn % 7 + 3, false)])).unwrap();
        }
        let again = Taken::open(path.clone());
        assert_eq!((again.values.len(), &again.values), (9, &taken.values));
        assert!(again.lines < STALE_LINES + 50, "{} lines of {} values", again.lines, again.values.len());
        // The process ended in the middle of a line.
        std::fs::write(&path, "1 true\n2 fal").unwrap();
        assert_eq!(Taken::open(path).values, BTreeMap::from([(1, true)]));
    }
}

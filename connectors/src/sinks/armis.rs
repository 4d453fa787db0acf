//! Tells an Armis which of its devices answer: a custom property of each, true or false, written when it changes.
//!
//! What Armis took is kept in a file in the data directory, a line a value, so that nothing is written again after a
//! start. It is no ledger: what is lost of it is written once more, which changes nothing. But nothing stands in it that
//! Armis did not take: a line is believed only with its end, and behind one that was torn nothing is
//! written. A batch that Armis refuses is
//! tried again at the next turn, and an alert tells (`write-back-failed`); the other batches are written meanwhile.
//! Values that came and went between two turns are not told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use radarflow_proto::disk::Disk;
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
    disk: Arc<dyn Disk>,
    path: PathBuf,
    values: BTreeMap<u64, bool>,
    lines: usize,
    /// Its last line may be torn: it is written anew before anything is added.
    torn: bool,
}

impl Taken {
    fn open(disk: &Arc<dyn Disk>, path: PathBuf) -> std::io::Result<Taken> {
        let bytes = match disk.read_all(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Bytes::new(),
            Err(error) => return Err(error),
        };
        let text = String::from_utf8_lossy(&bytes);
        let value = |line: &str| {
            let (id, value) = line.strip_suffix('\n')?.split_once(' ')?;
            Some((id.parse().ok()?, value.parse().ok()?))
        };
        // A torn line is none; its value is written again.
        let values = text.split_inclusive('\n').filter_map(value).collect();
        let (lines, torn) = (text.lines().count(), !text.is_empty() && !text.ends_with('\n'));
        Ok(Taken { disk: disk.clone(), path, values, lines, torn })
    }

    fn text<'a>(values: impl IntoIterator<Item = (&'a u64, &'a bool)>) -> String {
        values.into_iter().map(|(id, value)| format!("{id} {value}\n")).collect()
    }

    fn note(&mut self, batch: &BTreeMap<u64, bool>) -> std::io::Result<()> {
        self.values.extend(batch);
        self.lines += batch.len();
        if self.torn || self.lines > 2 * self.values.len() + STALE_LINES {
            self.disk.write_durably(&self.path, Self::text(&self.values).as_bytes())?;
            (self.lines, self.torn) = (self.values.len(), false);
            return Ok(());
        }
        // Until all of it is there nobody knows how much is.
        self.torn = true;
        let mut file =
            if self.disk.exists(&self.path) { self.disk.open(&self.path)? } else { self.disk.create(&self.path)? };
        file.append(Self::text(batch).as_bytes())?;
        file.sync()?;
        self.torn = false;
        Ok(())
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
/// What was taken cannot be read, or there can be no HTTP client.
pub fn start(
    config: Config,
    what: WriteBack,
    disk: &Arc<dyn Disk>,
    dir: &Path,
    availability: Availability,
    runs: Runs,
    stop: Stop,
) -> std::io::Result<()> {
    let dir = dir.join(&config.common.tenant);
    disk.make_dir(&dir)?;
    let taken = Taken::open(disk, dir.join(format!("armis-{}", config.common.name)))?;
    let client = Client::new(&config.common, TRIES, runs.memory(), stop.clone()).map_err(std::io::Error::other)?;
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
            self.client.forget();
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

    /// A disk whose appends write a part, and then fail.
    struct Torn(Arc<dyn Disk>, std::sync::Mutex<Option<usize>>);

    struct Part(Box<dyn radarflow_proto::disk::Appender>, Option<usize>);

    impl radarflow_proto::disk::Appender for Part {
        fn append(&mut self, bytes: &[u8]) -> std::io::Result<()> {
            let Some(part) = self.1.take() else { return self.0.append(bytes) };
            self.0.append(&bytes[..part])?;
            Err(std::io::Error::other("no room"))
        }
        fn sync(&mut self) -> std::io::Result<()> {
            self.0.sync()
        }
        fn truncate(&mut self, len: u64) -> std::io::Result<()> {
            self.0.truncate(len)
        }
    }

    impl Disk for Torn {
        fn create(&self, path: &Path) -> std::io::Result<Box<dyn radarflow_proto::disk::Appender>> {
            self.0.create(path)
        }
        fn open(&self, path: &Path) -> std::io::Result<Box<dyn radarflow_proto::disk::Appender>> {
            Ok(Box::new(Part(self.0.open(path)?, self.1.lock().unwrap().take())))
        }
        fn read(&self, path: &Path, offset: u64, len: usize) -> std::io::Result<Bytes> {
            self.0.read(path, offset, len)
        }
        fn stat(&self, path: &Path) -> std::io::Result<radarflow_proto::disk::Stat> {
            self.0.stat(path)
        }
        fn list(&self, dir: &Path) -> std::io::Result<Vec<radarflow_proto::disk::Found>> {
            self.0.list(dir)
        }
        fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
            self.0.rename(from, to)
        }
        fn link(&self, from: &Path, to: &Path) -> std::io::Result<()> {
            self.0.link(from, to)
        }
        fn remove(&self, path: &Path) -> std::io::Result<()> {
            self.0.remove(path)
        }
        fn make_dir(&self, dir: &Path) -> std::io::Result<()> {
            self.0.make_dir(dir)
        }
        fn sync_dir(&self, dir: &Path) -> std::io::Result<()> {
            self.0.sync_dir(dir)
        }
        fn room(&self, path: &Path) -> Option<u64> {
            self.0.room(path)
        }
    }

    #[test]
    fn what_was_taken_is_known_after_a_start_and_does_not_pile_up() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, path) = (crate::disk::os(), dir.path().join("armis-t-main"));
        let open = || Taken::open(&disk, path.clone()).unwrap();
        let mut taken = open();
        for turn in 0..600u64 {
            taken.note(&BTreeMap::from([(1, turn % 2 == 0), (2, true), (turn % 7 + 3, false)])).unwrap();
        }
        let again = open();
        assert_eq!((again.values.len(), &again.values), (9, &taken.values));
        assert!(again.lines < STALE_LINES + 50, "{} lines of {} values", again.lines, again.values.len());
        // The process ended in the middle of a line: what follows does not continue it.
        for torn in ["1 true\n2 fal", "1 true\n2", "1 true\n2 false"] {
            disk.write_durably(&path, torn.as_bytes()).unwrap();
            let mut taken = open();
            assert_eq!(taken.values, BTreeMap::from([(1, true)]), "{torn}");
            taken.note(&BTreeMap::from([(3, true)])).unwrap();
            assert_eq!(open().values, BTreeMap::from([(1, true), (3, true)]), "{torn}");
        }
    }

    #[test]
    fn a_line_that_the_disk_tore_is_continued_by_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("armis-t-main");
        let torn = Arc::new(Torn(crate::disk::os(), Default::default()));
        let disk: Arc<dyn Disk> = torn.clone();
        for part in 0..8 {
            let mut taken = Taken::open(&disk, path.clone()).unwrap();
            taken.note(&BTreeMap::from([(1, true)])).unwrap();
            *torn.1.lock().unwrap() = Some(part);
            assert!(taken.note(&BTreeMap::from([(22, false)])).is_err());
            taken.note(&BTreeMap::from([(3, true)])).unwrap();
            let known = Taken::open(&disk, path.clone()).unwrap().values;
            assert_eq!(known, BTreeMap::from([(1, true), (3, true), (22, false)]), "{part}");
            disk.remove(&path).unwrap();
        }
    }
}

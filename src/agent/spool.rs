//! Results that wait on disk while the gateway is away: frames in the ledger's segments, bounded in bytes; the oldest go first and
//! are counted.
//!
//! ```text
//! <data-dir>/spool/<first number, 20 digits>.seg     frames of results
//! <data-dir>/spool.delivered                         the last frame that was delivered, as text
//! ```
//! A frame that was delivered while the process died before it had written so is delivered a second time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use radarflow_connectors::ledger::LedgerError;
use radarflow_connectors::ledger::segments::Segments;
use radarflow_proto::disk::Disk;
use radarflow_proto::frame::{Entry, Frame, Kind, Origin, Slice};
use radarflow_proto::payload::ProbeFound;

use super::now_us;

/// Results of one frame at most.
pub(super) const RESULTS: usize = 1000;
/// A segment is closed once it is this long, bytes: what goes, goes by segments.
const SEGMENT_BYTES: u64 = 1 << 20;

/// They.
pub(super) struct Spool {
    disk: Arc<dyn Disk>,
    segments: Segments,
    /// Where it is written what was delivered.
    mark: PathBuf,
    /// The last frame that was.
    delivered: u64,
    /// Bytes at most.
    most: u64,
    /// By frame, how many results it has.
    counts: BTreeMap<u64, u64>,
    /// Frames that gave way since somebody was told: results in them.
    lost: u64,
}

impl Spool {
    /// Opens what waits.
    pub(super) fn open(disk: Arc<dyn Disk>, dir: &Path, most: u64) -> Result<Self, LedgerError> {
        let mark = dir.with_extension("delivered");
        let text = disk.read_all(&mark).unwrap_or_default();
        let delivered = String::from_utf8_lossy(&text).trim().parse().unwrap_or(0);
        let segments = Segments::open(disk.clone(), dir, delivered)?.closing_at(SEGMENT_BYTES);
        let mut spool = Spool { disk, segments, mark, delivered, most, counts: BTreeMap::new(), lost: 0 };
        spool.delivered = spool.delivered.clamp(spool.segments.first_epoch() - 1, spool.segments.next_epoch() - 1);
        let (counts, delivered) = (&mut spool.counts, spool.delivered);
        if delivered + 1 < spool.segments.next_epoch() {
            spool.segments.replay(delivered, |frame| {
                counts.insert(frame.epoch, read(&frame).len() as u64);
            })?;
        }
        Ok(spool)
    }

    /// Puts results behind the others; they come back where the disk does not take them.
    pub(super) fn push(&mut self, results: Vec<ProbeFound>) -> Result<(), (Vec<ProbeFound>, LedgerError)> {
        let body = serde_json::to_vec(&results).unwrap_or_default();
        let origin =
            Origin { kind: Kind::Status, tenant: String::new(), partition: String::new(), feed: String::new() };
        let entry = Entry { peer: None, received_us: now_us(), body: body.into() };
        let frame = Frame {
            generation: self.segments.generation(),
            epoch: self.segments.next_epoch(),
            clock_ms: (now_us() / 1000).max(self.segments.last_clock_ms()),
            gap_ms: 0,
            release_bytes: 0,
            ranges: Vec::new(),
            slices: vec![Slice { origin, first_position: 0, entries: vec![entry] }],
        };
        if let Err(error) = self.segments.append(&frame) {
            return Err((results, error));
        }
        self.counts.insert(frame.epoch, results.len() as u64);
        if let Err(error) = self.make_room() {
            tracing::warn!(%error, "old results cannot be removed");
        }
        Ok(())
    }

    /// Lets the oldest segments go that are too many.
    fn make_room(&mut self) -> Result<(), LedgerError> {
        let mut bytes = self.segments.bytes();
        while bytes > self.most {
            let Some((epoch, results)) = self.counts.pop_first() else { return Ok(()) };
            if epoch > self.delivered {
                (self.lost, self.delivered) = (self.lost + results, epoch);
            }
            self.segments.trim(epoch)?;
            bytes = self.segments.bytes();
        }
        Ok(())
    }

    /// So many frames that wait, the oldest first, and their places.
    pub(super) fn next(&self, most: usize) -> Result<Vec<(u64, Vec<ProbeFound>)>, LedgerError> {
        let mut found = Vec::new();
        if self.delivered + 1 < self.segments.next_epoch() {
            self.segments.replay_while(self.delivered, |frame| {
                if found.len() < most {
                    found.push((frame.epoch, read(&frame)));
                }
                found.len() < most
            })?;
        }
        Ok(found)
    }

    /// A frame was delivered.
    pub(super) fn delivered(&mut self, place: u64) -> Result<(), LedgerError> {
        self.delivered = self.delivered.max(place);
        self.disk
            .write_durably(&self.mark, self.delivered.to_string().as_bytes())
            .map_err(|source| LedgerError::Io { path: self.mark.clone(), source })?;
        self.counts = self.counts.split_off(&(self.delivered + 1));
        self.segments.trim(self.delivered)
    }

    /// Results that gave way and of which nobody was told yet.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// So many of them were told.
    pub(super) fn told(&mut self, lost: u64) {
        self.lost = self.lost.saturating_sub(lost);
    }

    /// What cannot be read any more is given up and counted: what comes after it is delivered all the same.
    pub(super) fn give_up(&mut self) -> Result<(), LedgerError> {
        self.lost += self.counts.range(self.delivered + 1..).map(|(_, results)| results).sum::<u64>();
        self.delivered(self.segments.next_epoch() - 1)
    }

    /// Opens what waits; what is damaged is put aside, beside it.
    pub(super) fn open_or_begin(disk: Arc<dyn Disk>, dir: &Path, most: u64) -> Result<Self, LedgerError> {
        let error = match Spool::open(disk.clone(), dir, most) {
            Err(error @ (LedgerError::Damaged { .. } | LedgerError::Missing { .. })) => error,
            opened => return opened,
        };
        let aside = dir.with_extension(format!("damaged-{}", now_us() / 1_000_000));
        tracing::error!(%error, aside = %aside.display(), "results that waited cannot be read; they are put aside");
        std::fs::rename(dir, &aside).map_err(|source| LedgerError::Io { path: dir.to_owned(), source })?;
        Spool::open(disk, dir, most)
    }
}

fn read(frame: &Frame) -> Vec<ProbeFound> {
    let entries = frame.slices.iter().flat_map(|slice| &slice.entries);
    entries.filter_map(|entry| serde_json::from_slice::<Vec<ProbeFound>>(&entry.body).ok()).flatten().collect()
}

#[cfg(test)]
mod tests {
    use radarflow_connectors::disk;

    use super::*;

    fn found(from: i64, n: i64) -> Vec<ProbeFound> {
        (from..from + n).map(|at_us| ProbeFound { at_us, ok: Some(true), ..ProbeFound::default() }).collect()
    }

    #[test]
    fn what_waits_outlives_the_process_and_is_delivered_in_order_once() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("spool");
        let open = || Spool::open(disk::os(), &dir, 1 << 30).unwrap();
        let mut spool = open();
        assert!(spool.next(10).unwrap().is_empty());
        for n in 0..5 {
            spool.push(found(n * 10, 10)).unwrap();
        }
        let first = spool.next(2).unwrap();
        assert_eq!(first.iter().flat_map(|(_, r)| r).map(|f| f.at_us).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
        spool.delivered(first[0].0).unwrap();
        drop(spool);
        let mut spool = open();
        let rest = spool.next(100).unwrap();
        assert_eq!(rest.iter().flat_map(|(_, r)| r).map(|f| f.at_us).collect::<Vec<_>>(), (10..50).collect::<Vec<_>>());
        for (place, _) in rest {
            spool.delivered(place).unwrap();
        }
        drop(spool);
        let mut spool = open();
        assert!(spool.next(10).unwrap().is_empty());
        spool.push(found(50, 1)).unwrap();
        assert_eq!(spool.next(10).unwrap()[0].1[0].at_us, 50);
    }

    #[test]
    fn beyond_its_bound_the_oldest_go_and_are_counted() {
        let home = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(disk::os(), &home.path().join("spool"), 3 << 20).unwrap();
        let (mut pushed, mut kept) = (0, 0);
        for n in 0..80 {
            spool.push(found(n * 1000, 1000)).unwrap();
            pushed += 1000;
        }
        let lost = spool.lost();
        spool.told(lost - 1);
        assert_eq!(spool.lost(), 1);
        assert!(lost > 0 && spool.segments.bytes() <= 4 << 20, "{}", spool.segments.bytes());
        loop {
            let batches = spool.next(8).unwrap();
            if batches.is_empty() {
                break;
            }
            for (place, results) in batches {
                kept += results.len() as u64;
                spool.delivered(place).unwrap();
            }
        }
        assert_eq!(lost + kept, pushed);
    }

    #[test]
    fn what_is_damaged_is_put_aside_and_the_rest_goes_on() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("spool");
        let open = || Spool::open_or_begin(disk::os(), &dir, 1 << 30).unwrap();
        let mut spool = open();
        (0..4).for_each(|n| spool.push(found(n * 10, 10)).unwrap());
        // Given up while it runs: counted, and what comes later is delivered.
        spool.give_up().unwrap();
        assert_eq!((spool.lost(), spool.next(10).unwrap().len()), (40, 0));
        spool.push(found(90, 1)).unwrap();
        spool.push(found(91, 1)).unwrap();
        assert_eq!(spool.next(10).unwrap().len(), 2);
        drop(spool);
        let segment = std::fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path();
        let mut bytes = std::fs::read(&segment).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 8].fill(0xff);
        std::fs::write(&segment, bytes).unwrap();
        let mut spool = open();
        spool.push(found(99, 1)).unwrap();
        assert_eq!(spool.next(10).unwrap().last().unwrap().1[0].at_us, 99);
        let aside = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.unwrap().file_name().to_string_lossy().contains("damaged")
        };
        assert!(std::fs::read_dir(home.path()).unwrap().any(aside));
    }
}

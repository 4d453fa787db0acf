//! The answer of a stream, from epoch to epoch: kept by what comes and goes, or asked for again.

use std::sync::Arc;
use std::time::Duration;

use radarflow_proto::ports::EpochOutput;
use serde_json::Value;

use crate::error::QueryError;
use crate::live::events::Event;
use crate::live::kept::{How, Kept, Rows, Taken, apart, count};
use crate::live::stream::{AGAIN, Ended, Stream};
use crate::tables::recent::Next;
use crate::tables::view::View;

/// The answer of a stream, from epoch to epoch.
pub(super) struct Answer<'a> {
    pub(super) stream: &'a Stream,
    /// What is kept of it, if it is not asked for again.
    pub(super) kept: Option<(How, Kept)>,
    /// What was told of one that is asked for again, and of which version.
    pub(super) known: Rows,
    pub(super) view: Arc<View>,
    /// The epoch that it is as of.
    pub(super) at: u64,
    /// There is a version that was not looked at.
    pub(super) unseen: bool,
    /// What is kept does not hold any more: it has to be counted anew.
    pub(super) is_stale: bool,
    /// More would have to be kept than may be.
    pub(super) is_too_large: bool,
    /// How long not to look at it again.
    pub(super) pause: Duration,
}

/// Rows that came, and rows that went.
pub(super) type Changes = (Vec<Value>, Vec<Value>);

impl Answer<'_> {
    /// Tells what came after an epoch until the version that it began with; false where that is not known any more.
    pub(super) async fn catch_up(&mut self, seen: u64) -> Result<bool, Ended> {
        let until = self.at.max(seen);
        self.at = seen;
        while self.at < until {
            let Next::Epoch(output) = self.stream.asked.engine.live().next(self.at).await else {
                self.at = until;
                return Ok(false);
            };
            self.take(&output).await?;
            // However long its client takes, it is not kept for that.
            drop(output);
            let (added, removed) = self.look(false).await?.unwrap_or_default();
            if !added.is_empty() || !removed.is_empty() {
                self.stream.send(Event::Change { epoch: self.at, added, removed }).await?;
            }
        }
        Ok(true)
    }

    /// Takes in an epoch.
    pub(super) async fn take(&mut self, output: &EpochOutput) -> Result<(), QueryError> {
        let Some((_, kept)) = &mut self.kept else {
            self.unseen = true;
            return Ok(());
        };
        if self.is_stale {
            return Ok(());
        }
        match kept.take(&self.stream.asked, output).await? {
            Taken::In => self.at = output.epoch,
            Taken::Stale => self.is_stale = true,
            Taken::TooLarge => self.is_too_large = true,
        }
        Ok(())
    }

    /// Whether there is something to be looked at.
    pub(super) fn waits(&self) -> bool {
        self.unseen || self.is_stale || self.kept.as_ref().is_some_and(|(_, kept)| kept.has_news())
    }

    /// What changed since it was last looked at, if anything can have. `overdue` says that the clock alone may have.
    pub(super) async fn look(&mut self, overdue: bool) -> Result<Option<Changes>, QueryError> {
        let asked = &self.stream.asked;
        let live = asked.engine.live();
        match &mut self.kept {
            Some((_, kept)) if kept.has_news() => {
                self.pause = Duration::ZERO;
                kept.news(asked).await.map(Some)
            }
            Some((how, kept)) if self.is_stale => {
                let view = live.view();
                let Some(anew) = asked.keep(*how, &view).await? else {
                    self.is_too_large = true;
                    return Ok(None);
                };
                let mut net = Rows::new();
                for (answer, sign) in [(&*kept, -1), (&anew, 1)] {
                    count(&answer.all(asked).await?.unwrap_or_default(), &mut net, sign);
                }
                (*kept, self.at, self.is_stale, self.pause) = (anew, view.epoch, false, AGAIN);
                Ok(Some(apart(&net)))
            }
            Some(_) => Ok(None),
            None => {
                let now = live.view();
                let moved = !now.same(&self.view, &asked.actor.tenant, &self.stream.tables);
                let looks = moved || (self.stream.slides && overdue);
                let mut net = Rows::new();
                if looks {
                    let rows = self.stream.ask(&now).await?;
                    net.extend(self.known.iter().map(|(row, n)| (row.clone(), -n)));
                    self.known.clear();
                    count(&rows, &mut self.known, 1);
                    count(&rows, &mut net, 1);
                    self.pause = AGAIN;
                }
                self.unseen = false;
                // What the clock may have changed is as of when it was asked for.
                if looks || !self.stream.slides {
                    (self.at, self.view) = (now.epoch, now);
                }
                Ok(looks.then(|| apart(&net)))
            }
        }
    }
}

//! A way into the ledger that can be handed out before intake takes anything.

use std::sync::Arc;

use radarflow_proto::frame::{Entry, Origin, Range};
use radarflow_proto::ports::{AppendError, Appender, BoxFuture, Part};
use tokio::sync::watch;

/// Who appends here waits until intake is there.
pub struct LateAppender(watch::Receiver<Option<Arc<dyn Appender>>>);

/// Puts intake behind a [`LateAppender`].
pub struct Late(watch::Sender<Option<Arc<dyn Appender>>>);

/// An appender, and what fills it.
pub fn pair() -> (Arc<dyn Appender>, Late) {
    let (set, get) = watch::channel(None);
    (Arc::new(LateAppender(get)), Late(set))
}

impl Late {
    /// From now on it leads there.
    pub fn set(&self, appender: Arc<dyn Appender>) {
        self.0.send_replace(Some(appender));
    }
}

impl Appender for LateAppender {
    fn append_all(&self, parts: Vec<Part>, ranges: Vec<Range>) -> BoxFuture<Result<u64, AppendError>> {
        let mut get = self.0.clone();
        Box::pin(async move {
            let appender = get.wait_for(Option::is_some).await.ok().and_then(|appender| appender.clone());
            match appender {
                Some(appender) => appender.append_all(parts, ranges).await,
                None => Err(AppendError::Closed),
            }
        })
    }

    fn durable(&self) -> Option<u64> {
        self.0.borrow().as_ref()?.durable()
    }

    fn offer(&self, origin: Arc<Origin>, entries: Vec<Entry>) -> Result<(), Vec<Entry>> {
        match &*self.0.borrow() {
            Some(appender) => appender.offer(origin, entries),
            None => Err(entries),
        }
    }
}

//! A way into the ledger that can be handed out before intake takes anything.

use std::sync::Arc;

use radarflow_proto::frame::{Entry, Origin, Range};
use radarflow_proto::ports::{AppendError, BoxFuture, FactSink, Part};
use tokio::sync::watch;

/// Who appends here waits until intake is there.
pub struct LateSink(watch::Receiver<Option<Arc<dyn FactSink>>>);

/// Puts intake behind a [`LateSink`].
pub struct Late(watch::Sender<Option<Arc<dyn FactSink>>>);

/// A sink, and what fills it.
pub fn pair() -> (Arc<dyn FactSink>, Late) {
    let (set, get) = watch::channel(None);
    (Arc::new(LateSink(get)), Late(set))
}

impl Late {
    /// From now on it leads there.
    pub fn set(&self, sink: Arc<dyn FactSink>) {
        self.0.send_replace(Some(sink));
    }
}

impl FactSink for LateSink {
    fn append_all(&self, parts: Vec<Part>, ranges: Vec<Range>) -> BoxFuture<Result<u64, AppendError>> {
        let mut get = self.0.clone();
        Box::pin(async move {
            let sink = get.wait_for(Option::is_some).await.ok().and_then(|sink| sink.clone());
            match sink {
                Some(sink) => sink.append_all(parts, ranges).await,
                None => Err(AppendError::Closed),
            }
        })
    }

    fn offer(&self, origin: Arc<Origin>, entries: Vec<Entry>) -> Result<(), Vec<Entry>> {
        match &*self.0.borrow() {
            Some(sink) => sink.offer(origin, entries),
            None => Err(entries),
        }
    }
}

//! Where a page ends and the next begins: the place of its last row in the total order of the result. A cursor carries it
//! with a hash of the query, the tenant, the epoch and the span of time, authenticated: it can be neither forged nor used
//! for something else. Who comes with one goes on in the version of the tables where they began.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::actor::Actor;
use crate::error::{QueryError, Span};
use crate::tables::view::View;

/// Versions of the tables that are kept for those who page through them.
pub const PINNED: usize = 32;
/// How long they are kept after somebody asked.
pub const PINNED_FOR: Duration = Duration::from_secs(120);

const NOT_OURS: QueryError = QueryError::Cursor("the cursor is not one of ours");

/// A place in the rows of a query.
#[derive(Serialize, Deserialize)]
pub(crate) struct Cursor {
    /// The query, as [`query_hash`] names it.
    pub(crate) query: String,
    pub(crate) tenant: String,
    /// The version of the tables.
    pub(crate) epoch: u64,
    /// The span looked at, microseconds since 1970.
    pub(crate) range: Option<(Option<i64>, Option<i64>)>,
    /// The clock of the epoch, milliseconds since 1970.
    pub(crate) clock_ms: i64,
    /// The time asked of.
    pub(crate) at: Option<i64>,
    /// The row that the page lies beyond.
    pub(crate) edge: Vec<Option<String>>,
    /// It lies before it.
    #[serde(default)]
    pub(crate) back: bool,
}

/// What authenticates cursors (HMAC-SHA256).
pub(crate) struct Seal([u8; 32]);

impl Seal {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Seal(key)
    }

    fn mac(&self, bytes: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("any length is a key");
        mac.update(bytes);
        mac
    }

    /// A cursor as text.
    pub(crate) fn close(&self, cursor: &Cursor) -> String {
        let mut bytes = serde_json::to_vec(cursor).unwrap_or_default();
        let mac = self.mac(&bytes).finalize().into_bytes();
        bytes.extend(mac);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// A cursor from text, if it is one of ours, and of this query.
    pub(crate) fn open(&self, text: &str, actor: &Actor, query: &str) -> Result<Cursor, QueryError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| NOT_OURS)?;
        let (body, mac) = bytes.split_last_chunk::<32>().ok_or(NOT_OURS)?;
        self.mac(body).verify_slice(mac).map_err(|_| NOT_OURS)?;
        let cursor: Cursor =
            serde_json::from_slice(body).map_err(|_| QueryError::Cursor("the cursor is of another version"))?;
        if cursor.tenant != actor.tenant || cursor.query != query {
            return Err(QueryError::Cursor("the cursor belongs to another query"));
        }
        Ok(cursor)
    }
}

/// Names a query apart from its cursor.
pub(crate) fn query_hash(text: &str, paging: &[Span]) -> String {
    let (mut words, mut at) = (Vec::new(), 0);
    for (start, end) in paging.iter().copied().chain([(text.len(), text.len())]) {
        words.extend(text.get(at..start).unwrap_or_default().split_whitespace());
        at = end;
    }
    hex::encode(&Sha256::digest(words.join(" "))[..8])
}

/// Versions of the tables that somebody pages through: by epoch, with when they were last asked for. What is let go of
/// is found again in the history of the lake, slower.
#[derive(Default)]
pub(crate) struct Pins(BTreeMap<u64, (Arc<View>, Instant)>);

impl Pins {
    pub(crate) fn keep(&mut self, view: &Arc<View>) {
        self.0.insert(view.epoch, (view.clone(), Instant::now()));
        self.0.retain(|_, (_, asked)| asked.elapsed() < PINNED_FOR);
        while self.0.len() > PINNED {
            let Some(oldest) = self.0.iter().min_by_key(|(_, (_, asked))| *asked).map(|(epoch, _)| *epoch) else {
                return;
            };
            self.0.remove(&oldest);
        }
    }

    pub(crate) fn get(&mut self, epoch: u64) -> Option<Arc<View>> {
        let (view, asked) = self.0.get_mut(&epoch)?;
        *asked = Instant::now();
        Some(view.clone())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

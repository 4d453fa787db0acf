//! How long somebody is told what they asked for: until the token that let them in is revoked, or over.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

/// How often it is looked whether a token is over, milliseconds: clocks step, and machines sleep.
const LOOK_AGAIN_MS: i64 = 1000;

/// How long somebody is told what they asked for: until their token is revoked, or over. Without a token it never ends.
#[derive(Clone, Debug, Default)]
pub struct Grant(pub(super) Option<Until>);

#[derive(Clone, Debug)]
pub(super) struct Until {
    /// Nothing is ever sent: it is closed when the token is revoked.
    pub(super) revoked: watch::Receiver<()>,
    pub(super) expires_ms: Option<i64>,
}

impl Grant {
    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        let Some(Until { revoked, expires_ms }) = &self.0 else { return false };
        revoked.has_changed().is_err() || expires_ms.is_some_and(|at| at <= now_ms())
    }

    /// Waits until it ends.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let until = self.0.clone();
        async move {
            let Some(Until { mut revoked, expires_ms }) = until else { return std::future::pending().await };
            let over = async {
                let Some(at) = expires_ms else { return std::future::pending().await };
                loop {
                    let left = at.saturating_sub(now_ms());
                    if left <= 0 {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(left.min(LOOK_AGAIN_MS).unsigned_abs())).await;
                }
            };
            tokio::select! {
                _ = revoked.changed() => {}
                () = over => {}
            }
        }
    }
}

/// Now, milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

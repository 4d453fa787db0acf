//! Who waits for what becomes of a command about resources.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use radarflow_proto::resource::Judgement;
use tokio::sync::oneshot;

/// A command: its tenant, its id, and what was asked.
pub(crate) type Asked = (String, String, Option<String>);

/// Those who wait, by command. There are as many as requests that are answered at once.
#[derive(Default)]
pub struct Judgements(Mutex<HashMap<Asked, Vec<oneshot::Sender<Judgement>>>>);

impl Judgements {
    /// Waits for a command from now on.
    pub(crate) fn of(&self, asked: &Asked) -> oneshot::Receiver<Judgement> {
        let (tell, told) = oneshot::channel();
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = waiting.entry(asked.clone()).or_default();
        // Whoever gave up makes place.
        of.retain(|waits| !waits.is_closed());
        of.push(tell);
        told
    }

    /// Whoever waits no longer.
    pub(crate) fn forget(&self, asked: &Asked) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of) = waiting.get_mut(asked) {
            of.retain(|waits| !waits.is_closed());
            if of.is_empty() {
                waiting.remove(asked);
            }
        }
    }

    /// Tells who waits.
    pub fn tell(&self, judgements: &[Judgement]) {
        if judgements.is_empty() {
            return;
        }
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for judgement in judgements {
            let asked = (judgement.tenant.clone(), judgement.command_id.clone(), judgement.digest.clone());
            for waits in waiting.remove(&asked).into_iter().flatten() {
                // They may have given up.
                let _ = waits.send(judgement.clone());
            }
        }
    }
}

//! Who waits for what becomes of a command about resources.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use radarflow_proto::resource::Judgement;
use tokio::sync::oneshot;

/// Those who wait, by tenant and command. There are as many as requests that are answered at once.
#[derive(Default)]
pub struct Judgements(Mutex<HashMap<(String, String), Vec<oneshot::Sender<Judgement>>>>);

impl Judgements {
    /// Waits for a command from now on.
    pub(crate) fn of(&self, tenant: &str, command_id: &str) -> oneshot::Receiver<Judgement> {
        let (tell, told) = oneshot::channel();
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever gave up makes place.
        let of = waiting.entry((tenant.to_owned(), command_id.to_owned())).or_default();
        of.retain(|waits| !waits.is_closed());
        of.push(tell);
        told
    }

    /// Whoever waits no longer.
    pub(crate) fn forget(&self, tenant: &str, command_id: &str) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (tenant.to_owned(), command_id.to_owned());
        if let Some(of) = waiting.get_mut(&key) {
            of.retain(|waits| !waits.is_closed());
            if of.is_empty() {
                waiting.remove(&key);
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
            let key = (judgement.tenant.clone(), judgement.command_id.clone());
            for waits in waiting.remove(&key).into_iter().flatten() {
                // They may have given up.
                let _ = waits.send(judgement.clone());
            }
        }
    }
}

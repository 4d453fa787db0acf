//! One at a time, a tenant: who decides by what stands, and then changes it, must not do so beside another. Tenants do not
//! wait for each other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

/// The turns of tenants. Only tenants that exist take any: there are as many as these.
#[derive(Debug, Default)]
pub struct Turns(Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits for a turn; it lasts as long as what is returned.
    pub async fn take(&self, tenant: &str) -> OwnedMutexGuard<()> {
        let turn = self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(tenant.to_owned()).or_default().clone();
        turn.lock_owned().await
    }
}

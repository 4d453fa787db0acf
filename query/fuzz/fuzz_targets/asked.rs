//! Who asks, and of what: the data of the tests.

#[path = "../../tests/it/data.rs"]
mod data;

use std::sync::{Arc, LazyLock};

use radarflow_proto::fact::Role;
use radarflow_query::actor::Actor;
use radarflow_query::engine::Engine;
use radarflow_query::error::QueryError;
use radarflow_query::tables::live::Live;
use tokio::runtime::Runtime;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime starts"));

pub static ACTOR: LazyLock<Actor> =
    LazyLock::new(|| Actor::of_role("test", "t", Role::Viewer));

pub static ENGINE: LazyLock<Arc<Engine>> = LazyLock::new(|| {
    let live = Arc::new(Live::new(None, 0));
    for epoch in data::epochs() {
        live.apply(&epoch.into());
    }
    Arc::new(Engine::new(live, [7; 32]).expect("an engine starts"))
});

pub fn run<T>(asked: impl Future<Output = T>) -> T {
    RUNTIME.block_on(asked)
}

/// Anything but an answer or the asker's mistake is ours.
#[allow(dead_code, reason = "some targets say more")]
pub fn answered<T>(text: &str, answer: Result<T, QueryError>) {
    match answer {
        Err(QueryError::Failed(detail)) => panic!("{text:?} failed: {detail}"),
        Err(error @ (QueryError::TimedOut | QueryError::Busy)) => panic!("{text:?} has no end: {error:?}"),
        Err(QueryError::Language(error)) => {
            assert!(error.start <= error.end && error.end <= text.len(), "{error:?} is nowhere in {text:?}");
        }
        _ => {}
    }
}

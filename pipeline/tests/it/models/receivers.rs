//! Receivers of notifications: well, away, silent, slow, refusing, asking to wait, and losing the answer to what they took.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use radarflow_connectors::sinks::webhook::{Post, Receivers, Reply};
use rand::RngExt;
use rand::rngs::StdRng;

/// How a receiver is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Well,
    Away,
    Silent,
    Slow(u64),
    Refuses,
    AsksToWait,
    /// It takes the message, and the answer is lost.
    Forgetful,
    /// It takes none of this kind.
    Rejects,
}

pub fn mood(rng: &mut StdRng) -> Mood {
    match rng.random_range(0..9) {
        0 => Mood::Away,
        1 => Mood::Silent,
        2 => Mood::Slow(rng.random_range(10..15_000)),
        3 => Mood::Refuses,
        4 => Mood::AsksToWait,
        5 => Mood::Forgetful,
        6 => Mood::Rejects,
        _ => Mood::Well,
    }
}

#[derive(Default)]
struct Inner {
    moods: BTreeMap<String, Mood>,
    /// By idempotency key: where the message went, what it said, and how often it came.
    got: BTreeMap<String, (String, String, usize)>,
}

/// All of them, by address.
#[derive(Clone, Default)]
pub struct Model(Arc<Mutex<Inner>>);

impl Model {
    /// The receiver at this address is so from now on.
    pub fn is(&self, url: &str, mood: Mood) {
        self.0.lock().unwrap().moods.insert(url.to_owned(), mood);
    }

    /// All are well.
    pub fn heal(&self) {
        self.0.lock().unwrap().moods.clear();
    }

    /// Whether a message came.
    pub fn has(&self, key: &str) -> bool {
        self.0.lock().unwrap().got.contains_key(key)
    }

    fn take(&self, post: &Post) {
        let mut inner = self.0.lock().unwrap();
        let said = (post.url.clone(), post.body.to_string());
        let (url, body, times) =
            inner.got.entry(post.key.clone()).or_insert_with(|| (said.0.clone(), said.1.clone(), 0));
        *times += 1;
        assert!(*url == said.0 && *body == said.1, "{} says another thing the {times}th time", post.key);
    }
}

fn answer(status: u16) -> Reply {
    Reply::Answered { status, said: status.to_string(), retry_after: (status == 429).then_some(Duration::from_secs(3)) }
}

#[async_trait]
impl Receivers for Model {
    async fn post(&self, post: Post) -> Reply {
        let mood = self.0.lock().unwrap().moods.get(&post.url).copied().unwrap_or(Mood::Well);
        match mood {
            Mood::Well => self.take(&post),
            Mood::Away => return Reply::Unreachable("nobody is there".to_owned()),
            Mood::Silent => std::future::pending().await,
            Mood::Slow(ms) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                self.take(&post);
            }
            Mood::Refuses => return answer(503),
            Mood::AsksToWait => return answer(429),
            Mood::Forgetful => {
                self.take(&post);
                return Reply::Unreachable("the connection was reset".to_owned());
            }
            Mood::Rejects => return answer(400),
        }
        answer(200)
    }
}

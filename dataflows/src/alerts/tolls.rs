//! How often receivers were told of an alert, and when last.

use radarflow_proto::cell::Time;
use serde::{Deserialize, Serialize};

use crate::keyed::{Machine, Tick};

/// Which alert: customer and id.
pub(super) type TollKey = (String, String);

/// What is counted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum TollEvent {
    /// A receiver was told, milliseconds since 1970.
    Told(i64),
    /// A row of the alert comes or goes.
    Row(i64),
}

/// A count, and when it was last more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Toll {
    pub(super) count: i64,
    pub(super) last: Time,
}

/// Counts. What is kept goes with the alert's row.
pub(super) struct Tolls;

impl Machine for Tolls {
    type Key = TollKey;
    type Event = TollEvent;
    type State = Toll;
    type Output = (TollKey, Toll, isize);
    const NAME: &'static str = "tolls";

    fn step(
        &mut self,
        _tick: &Tick,
        key: &TollKey,
        state: &mut Option<Toll>,
        events: Vec<TollEvent>,
        out: &mut Vec<(TollKey, Toll, isize)>,
    ) {
        let before = *state;
        let mut rows = 0;
        for event in events {
            match event {
                TollEvent::Row(diff) => rows += diff,
                TollEvent::Told(at_ms) => {
                    let last = Time::from_ms(at_ms);
                    let toll = state.get_or_insert(Toll { count: 0, last });
                    *toll = Toll { count: toll.count + 1, last };
                }
            }
        }
        if rows < 0 {
            *state = None;
        }
        if before != *state {
            out.extend(before.map(|toll| (key.clone(), toll, -1)));
            out.extend(state.map(|toll| (key.clone(), toll, 1)));
        }
    }

    fn due_ms(&self, _state: &Toll) -> Option<i64> {
        None
    }

    fn restored(&mut self, key: &TollKey, state: &Toll, out: &mut Vec<(TollKey, Toll, isize)>) {
        out.push((key.clone(), *state, 1));
    }
}

//! Collections, and the two ways across their border: in from what machines say, and out to events.
//!
//! **Invariant.** An update of a collection bears its own epoch; the batch that it travels in may be stamped with an earlier
//! one. A batch of [`Events`] is stamped with exactly the epoch at which its events happen. So what takes the time of a
//! batch of a collection for the epoch of its updates is wrong: things happen too early, and at another epoch on another
//! number of workers. Hence:
//!
//! * [`collected`] makes updates of events: the batch's epoch becomes the update's;
//! * [`changes`] makes events of updates: the update's epoch becomes the batch's.
//!
//! An operator that reads the updates of a collection itself goes by the epoch of each, and by the frontier.

use differential_dataflow::{AsCollection, VecCollection};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;

/// A collection over epochs.
pub type Rel<'scope, D> = VecCollection<'scope, u64, D, isize>;
/// Events, each at the epoch of its batch.
pub type Events<'scope, E> = Stream<'scope, u64, Vec<E>>;

/// The collection that events say: of each event, the row that `update` makes of it and how its multiplicity changes.
pub fn collected<'scope, E: Clone + 'static, D: Clone + 'static>(
    events: Events<'scope, E>,
    mut update: impl FnMut(E) -> Option<(D, isize)> + 'static,
) -> Rel<'scope, D> {
    let updates = events.unary(Pipeline, "Collect", move |_, _| {
        move |input, output| {
            input.for_each(|time, data| {
                let epoch = *time.least().expect("events have an epoch");
                let mut session = output.session(&time);
                for event in data.drain(..) {
                    if let Some((row, diff)) = update(event) {
                        session.give((row, epoch, diff));
                    }
                }
            });
        }
    });
    updates.as_collection()
}

/// The changes of a collection as events.
pub fn changes<'scope, D: Clone + 'static, E: Clone + 'static>(
    collection: Rel<'scope, D>,
    mut event: impl FnMut(D, isize) -> E + 'static,
) -> Events<'scope, E> {
    collection.inner.unary(Pipeline, "Changes", move |_, _| {
        move |input, output| {
            input.for_each(|time, data| {
                data.sort_by_key(|(_, epoch, _)| *epoch);
                let mut updates = data.drain(..).peekable();
                while let Some((_, epoch, _)) = updates.peek() {
                    let epoch = *epoch;
                    let capability = time.delayed(&epoch, 0);
                    let mut session = output.session(&capability);
                    while let Some((row, _, diff)) = updates.next_if(|(_, e, _)| *e == epoch) {
                        session.give(event(row, diff));
                    }
                }
            });
        }
    })
}

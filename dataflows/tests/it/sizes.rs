//! How much the dataflow keeps is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use differential_dataflow::Config;
use differential_dataflow::input::Input;
use differential_dataflow::trace::TraceReader;
use radarflow_dataflows::sizes::{Marks, Size, Sizes};
use timely::progress::frontier::AntichainRef;

/// More steps than there are operators in a row.
fn settle(worker: &mut timely::worker::Worker) {
    for _ in 0..20 {
        worker.step();
    }
}

#[test]
fn what_arrangements_hold_is_told_by_part_and_goes_with_them() {
    let sizes = Arc::new(Sizes::default());
    let shared = sizes.clone();
    let mut config = timely::Config::thread();
    differential_dataflow::configure(&mut config.worker, &Config { idle_merge_effort: Some(1000) });
    timely::execute(config, move |worker| {
        let held = || shared.parts().into_iter().collect::<BTreeMap<_, _>>();
        let marks = Marks::listen(worker, shared.clone());
        let (mut inputs, mut traces) = worker.dataflow::<u64, _, _>(|scope| {
            let arranged = ["a", "b"].map(|part| {
                marks.part(scope, part);
                let (input, collection) = scope.new_collection::<(u64, u64), isize>();
                (input, collection.arrange_by_key().trace)
            });
            arranged.into_iter().unzip::<_, _, Vec<_>, Vec<_>>()
        });
        (0..1000).for_each(|n| inputs[0].insert((n, n)));
        (0..10).for_each(|n| inputs[1].insert((n, n)));
        for epoch in 1..100 {
            if epoch == 20 {
                (0..900).for_each(|n| inputs[0].remove((n, n)));
            }
            for (input, trace) in inputs.iter_mut().zip(&mut traces) {
                input.advance_to(epoch);
                input.flush();
                trace.set_logical_compaction(AntichainRef::new(&[epoch]));
                trace.set_physical_compaction(AntichainRef::new(&[epoch]));
            }
            settle(worker);
            if epoch == 10 {
                assert_eq!((held()["a"].updates, held()["b"].updates), (1000, 10));
                assert!(held()["b"].batches > 0);
            }
        }
        // What was removed is gone once its batches were merged.
        assert_eq!((held()["a"].updates, held()["b"].updates), (100, 10));
        drop((inputs, traces));
        settle(worker);
    })
    .unwrap();
    assert!(sizes.parts().iter().all(|(_, size)| *size == Size::default()), "{:?}", sizes.parts());
    sizes.machine("m", 0).store(3, Ordering::Relaxed);
    sizes.machine("m", 1).store(4, Ordering::Relaxed);
    assert_eq!(sizes.machines(), [("m", 7)]);
}

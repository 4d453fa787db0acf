//! How arrangements lie in memory: as differential's own, but room is not kept for what is rarely there.
//!
//! ```text
//! keys    k0        k1   …          a name, sixteen bytes
//! values  v00 v01   v10  …          what is said of it
//! times   t         …               one where it differs from the one before it, diffs likewise
//! ```
//! Once an arrangement is compacted nearly all of its updates bear one time and one diff, and are told once for all. The
//! default layout reserves sixteen bytes for each of them all the same, in every batch.

use std::marker::PhantomData;
use std::rc::Rc;

use differential_dataflow::batcher::merge::MergeBatcher;
use differential_dataflow::batcher::merge::vec::VecMerger;
use differential_dataflow::trace::implementations::ord_neu::{OrdValBatch, OrdValBuilder};
use differential_dataflow::trace::implementations::spine_fueled::Spine;
use differential_dataflow::trace::implementations::{BatchContainer, ContainerChunker, Layout, OffsetList};

/// Updates of one value, as they come.
pub type Updates<K, V> = Vec<((K, V), u64, isize)>;
/// What is arranged.
pub type Arrangement<K, V> = Spine<Rc<OrdValBatch<Lean<K, V>>>>;
/// Makes its batches of what is in order.
pub type Builder<K, V> = OrdValBuilder<Lean<K, V>, Updates<K, V>>;
/// Makes its batches of what is not.
pub type Batcher<K, V> = MergeBatcher<ContainerChunker<Updates<K, V>>, VecMerger<(K, V), u64, isize>, Builder<K, V>>;

/// The layout.
pub struct Lean<K, V>(PhantomData<(K, V)>);

impl<K: Clone + Ord + 'static, V: Clone + Ord + 'static> Layout for Lean<K, V> {
    type KeyContainer = Vec<K>;
    type ValContainer = Vec<V>;
    type TimeContainer = Few<u64>;
    type DiffContainer = Few<isize>;
    type OffsetContainer = OffsetList;
}

/// A list that takes room as it grows, however much of it was expected.
pub struct Few<T>(Vec<T>);

impl<T: Copy + Ord + 'static> BatchContainer for Few<T> {
    type Owned = T;
    type ReadItem<'a> = T;

    fn into_owned<'a>(item: Self::ReadItem<'a>) -> T {
        item
    }

    fn push_ref(&mut self, item: Self::ReadItem<'_>) {
        self.0.push(item);
    }

    fn push_own(&mut self, item: &T) {
        self.0.push(*item);
    }

    fn clear(&mut self) {
        self.0.clear();
    }

    fn with_capacity(_: usize) -> Self {
        Few(Vec::new())
    }

    fn merge_capacity(_: &Self, _: &Self) -> Self {
        Few(Vec::new())
    }

    fn reborrow<'b, 'a: 'b>(item: Self::ReadItem<'a>) -> Self::ReadItem<'b> {
        item
    }

    fn index(&self, index: usize) -> T {
        self.0[index]
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

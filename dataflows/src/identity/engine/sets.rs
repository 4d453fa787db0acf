//! What the engine is built of: lists of small numbers that are mostly one or two, sets of marked numbers, slabs that never
//! move, and tables from names to numbers.

use std::collections::BTreeSet;

use hashbrown::HashTable;
use radarflow_reconcile::identity::name::Name;

/// Numbers that are mostly one or two, in no order that matters.
///
/// There is one for each key, so it is two words.
#[derive(Clone, Debug, Default)]
#[allow(clippy::box_collection)]
pub(super) enum Few {
    #[default]
    None,
    One(u32),
    Two([u32; 2]),
    Many(Box<Vec<u32>>),
    Hub(Box<BTreeSet<u32>>),
}

/// Beyond this many they are a set.
const HUB: usize = 128;

impl Few {
    /// Adds one that is not there.
    pub(super) fn add(&mut self, n: u32) {
        *self = match std::mem::take(self) {
            Few::None => Few::One(n),
            Few::One(a) => Few::Two([a, n]),
            Few::Two([a, b]) => Few::Many(Box::new(vec![a, b, n])),
            Few::Many(mut many) if many.len() < HUB => {
                many.push(n);
                Few::Many(many)
            }
            Few::Many(many) => Few::Hub(Box::new(many.into_iter().chain([n]).collect())),
            Few::Hub(mut hub) => {
                hub.insert(n);
                Few::Hub(hub)
            }
        };
    }

    /// Takes one away, if it is there.
    pub(super) fn remove(&mut self, n: u32) {
        *self = match std::mem::take(self) {
            Few::One(a) if a == n => Few::None,
            Few::Two([a, b]) if a == n => Few::One(b),
            Few::Two([a, b]) if b == n => Few::One(a),
            Few::Many(mut many) => {
                if let Some(at) = many.iter().position(|m| *m == n) {
                    many.swap_remove(at);
                }
                if let [a, b] = many[..] { Few::Two([a, b]) } else { Few::Many(many) }
            }
            Few::Hub(mut hub) => {
                hub.remove(&n);
                if hub.len() < HUB / 2 { Few::Many(Box::new(hub.into_iter().collect())) } else { Few::Hub(hub) }
            }
            other => other,
        };
    }

    /// How many they are.
    pub(super) fn len(&self) -> usize {
        match self {
            Few::None => 0,
            Few::One(_) => 1,
            Few::Two(_) => 2,
            Few::Many(many) => many.len(),
            Few::Hub(hub) => hub.len(),
        }
    }

    /// All of them.
    pub(super) fn iter(&self) -> FewIter<'_> {
        match self {
            Few::None => FewIter::Slice([].iter()),
            Few::One(a) => FewIter::Slice(std::slice::from_ref(a).iter()),
            Few::Two(two) => FewIter::Slice(two.iter()),
            Few::Many(many) => FewIter::Slice(many.iter()),
            Few::Hub(hub) => FewIter::Hub(hub.iter()),
        }
    }
}

/// Tells of [`Few`].
#[derive(Clone)]
pub(super) enum FewIter<'a> {
    Slice(std::slice::Iter<'a, u32>),
    Hub(std::collections::btree_set::Iter<'a, u32>),
}

impl Iterator for FewIter<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        match self {
            FewIter::Slice(slice) => slice.next().copied(),
            FewIter::Hub(hub) => hub.next().copied(),
        }
    }
}

/// A set of numbers, in the order in which they came: a list, and a bit each.
#[derive(Default)]
pub(super) struct Marks {
    list: Vec<u32>,
    bits: Vec<u64>,
}

/// Marks that a set keeps room for between epochs.
const KEPT_MARKS: usize = 1 << 16;

impl Marks {
    /// Marks a number; tells whether it was not.
    pub(super) fn add(&mut self, n: u32) -> bool {
        let (word, bit) = ((n >> 6) as usize, 1 << (n & 63));
        if word >= self.bits.len() {
            self.bits.resize(word + 1024, 0);
        }
        let new = self.bits[word] & bit == 0;
        if new {
            self.bits[word] |= bit;
            self.list.push(n);
        }
        new
    }

    pub(super) fn extend(&mut self, numbers: impl IntoIterator<Item = u32>) {
        for n in numbers {
            self.add(n);
        }
    }

    pub(super) fn has(&self, n: u32) -> bool {
        self.bits.get((n >> 6) as usize).is_some_and(|word| word >> (n & 63) & 1 != 0)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.list.iter().copied()
    }

    pub(super) fn clear(&mut self) {
        for n in self.list.drain(..) {
            self.bits[(n >> 6) as usize] = 0;
        }
        self.list.shrink_to(KEPT_MARKS);
    }
}

/// Grows without moving, so that no epoch pays for the size of all.
#[derive(Default)]
pub(super) struct Slab<T> {
    pieces: Vec<Vec<T>>,
    len: usize,
}

const PIECE: usize = 1 << 12;

impl<T> Slab<T> {
    pub(super) fn push(&mut self, value: T) -> u32 {
        if self.len.is_multiple_of(PIECE) {
            self.pieces.push(Vec::with_capacity(if self.len == 0 { 0 } else { PIECE }));
        }
        self.pieces.last_mut().expect("a piece was just made").push(value);
        self.len += 1;
        self.len as u32 - 1
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flatten()
    }
}

impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, at: u32) -> &T {
        &self.pieces[at as usize / PIECE][at as usize % PIECE]
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, at: u32) -> &mut T {
        &mut self.pieces[at as usize / PIECE][at as usize % PIECE]
    }
}

/// What has a name.
pub(super) trait Named {
    fn name(&self) -> Name;
}

/// Things by number, found by name; numbers that are let go are given anew.
pub(super) struct Interned<T> {
    all: Slab<T>,
    by_name: HashTable<u32>,
    free: Vec<u32>,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Interned { all: Slab { pieces: Vec::new(), len: 0 }, by_name: HashTable::new(), free: Vec::new() }
    }
}

impl<T: Named> Interned<T> {
    pub(super) fn find(&self, name: Name) -> Option<u32> {
        self.by_name.find(name.short(), |n| self.all[*n].name() == name).copied()
    }

    /// The number of a name that has none yet.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        let name = value.name();
        let n = match self.free.pop() {
            Some(n) => {
                self.all[n] = value;
                n
            }
            None => self.all.push(value),
        };
        let all = &self.all;
        self.by_name.insert_unique(name.short(), n, |n| all[*n].name().short());
        n
    }

    /// Lets go of a number; what was there stays until it is given anew.
    pub(super) fn remove(&mut self, n: u32) {
        let name = self.all[n].name();
        if let Ok(found) = self.by_name.find_entry(name.short(), |found| *found == n) {
            found.remove();
            self.free.push(n);
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len() - self.free.len()
    }

    /// Numbers in use and not, from zero.
    pub(super) fn numbers(&self) -> std::ops::Range<u32> {
        0..self.all.len() as u32
    }

    /// All that there is, in no order, and some that is let go.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.all.iter()
    }
}

impl<T> std::ops::Index<u32> for Interned<T> {
    type Output = T;

    fn index(&self, at: u32) -> &T {
        &self.all[at]
    }
}

impl<T> std::ops::IndexMut<u32> for Interned<T> {
    fn index_mut(&mut self, at: u32) -> &mut T {
        &mut self.all[at]
    }
}

/// Goes through numbers again and again, some of them at a time.
#[derive(Default)]
pub(super) struct Rounds {
    next: u32,
}

/// One number in so many at a time.
const SHARE: u32 = 10_000;
/// At most so many.
const MOST: u32 = 32;

impl Rounds {
    /// The next ones.
    pub(super) fn next(&mut self, of: std::ops::Range<u32>) -> impl Iterator<Item = u32> + use<> {
        let (first, n) = (self.next, of.end);
        let some = if n == 0 { 0 } else { (n / SHARE + 1).min(MOST).min(n) };
        self.next = if n == 0 { 0 } else { (first % n + some) % n };
        (0..some).map(move |at| (first % n + at) % n)
    }
}

//! Stage 1: devices by strong identifiers and operators' links.

use super::{Key, World};

/// Whether identifiers include two values of one namespace that must-links do not connect.
pub fn collide(world: &impl World, ids: impl Iterator<Item = Key>) -> bool {
    let mut held: Vec<(u32, Key)> = Vec::new();
    for id in ids {
        let Some(space) = world.space(id) else { continue };
        let value = world.must(id);
        match held.iter().find(|(known, _)| *known == space) {
            Some((_, other)) if *other != value => return true,
            Some(_) => {}
            None => held.push((space, value)),
        }
    }
    false
}

/// The identifiers that records link to one, some perhaps more than once: its record's own, where it is not that; and the
/// others of records that belong by it.
pub fn neighbours(world: &impl World, id: Key) -> impl Iterator<Item = Key> + '_ {
    let records = world.space(id).map(|_| world.asserting(id));
    records.into_iter().flatten().flat_map(move |rec| {
        let ids = world.ids(rec);
        if ids[0] == id { &ids[1..] } else { &ids[..1] }.iter().copied()
    })
}

/// Whether an identifier would join what must stay apart: it and its neighbours by record-made links include two values of
/// one namespace that must-links do not connect. All record-made links at it are dropped.
pub fn ambiguous(world: &impl World, id: Key) -> bool {
    collide(world, std::iter::once(id).chain(neighbours(world, id)))
}

/// Whether a component holds what must stay apart: two values of one namespace that must-links alone do not connect, or both
/// ends of a cannot-link. What must-links alone connect stays.
pub fn contested(world: &impl World, ids: &[Key]) -> bool {
    let parted = |id: &Key| world.apart(*id).iter().any(|other| ids.contains(other));
    collide(world, ids.iter().copied()) || (world.any_apart() && ids.iter().any(parted))
}

//! What an exporter calls its applications, interfaces, routing instances and samplers, as its options tell.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::OVERHEAD;
use crate::flow::MAX_NAME_BYTES;

/// Names one exporter may tell, of all kinds together.
pub const MAX_NAMES: usize = 4608;

/// What a name is of.
#[derive(Clone, Copy, Debug)]
pub(super) enum Named {
    /// An application.
    App,
    /// An interface.
    Interface,
    /// An interface: what its administrator says of it.
    Description,
    /// A routing instance.
    Vrf,
    /// A sampler.
    Sampler,
}

const KINDS: usize = Named::Sampler as usize + 1;

/// Names by kind and number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Names {
    of: [BTreeMap<u64, String>; KINDS],
    count: usize,
    bytes: usize,
}

impl Names {
    pub(super) fn get(&self, kind: Named, id: u64) -> Option<&str> {
        self.of[kind as usize].get(&id).map(String::as_str)
    }

    /// Takes in a name, if there is room for another or it is of something that has one.
    pub(super) fn learn(&mut self, kind: Named, id: u64, name: &str) {
        let of = &mut self.of[kind as usize];
        if name.is_empty() || (self.count >= MAX_NAMES && !of.contains_key(&id)) {
            return;
        }
        let name = &name[..name.floor_char_boundary(MAX_NAME_BYTES)];
        self.bytes += name.len();
        match of.insert(id, name.to_owned()) {
            Some(old) => self.bytes -= old.len(),
            None => self.count += 1,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.count * OVERHEAD + self.bytes
    }
}

//! Stage 3: who owns an address.

use radarflow_proto::cell::Time;

use crate::identity::{ClaimClass, MAX_CLAIMANTS};

/// A device claims an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim<D> {
    /// How strongly.
    pub class: ClaimClass,
    /// Event time.
    pub at: Time,
    /// The device.
    pub device: D,
}

/// Who owns an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner<D> {
    /// Nobody who is known claims it.
    Nobody,
    /// The greatest claim is of one device, or equally of several, which names tell apart.
    Devices {
        /// The device, or several.
        equal: Vec<D>,
        /// Class of the claim.
        class: ClaimClass,
        /// Event time of it.
        since: Time,
    },
    /// The device of the records known by it alone.
    Itself {
        /// Class of their claim.
        class: ClaimClass,
        /// Event time of it.
        since: Time,
    },
    /// Too many claim it at the deciding class.
    Shared(ClaimClass),
}

/// Who owns an address: the device of the greatest claim by class and event time, unless more than sixteen claim it at that
/// class; without one, the records known by it `alone`, of which others than sweeps speak first.
pub fn owner<D: Copy + PartialEq>(
    claims: impl Iterator<Item = Claim<D>>,
    alone: impl Iterator<Item = (ClaimClass, Time)>,
) -> Owner<D> {
    // A million devices may claim one address: that there are too many is enough to know.
    let (mut best, mut parties, mut equal): (Option<(ClaimClass, Time)>, Vec<D>, Vec<D>) = (None, vec![], vec![]);
    for Claim { class, at, device } in claims {
        match best {
            Some((deciding, _)) if class < deciding => continue,
            Some((deciding, _)) if class > deciding => {
                parties.clear();
                equal.clear();
                best = Some((class, at));
            }
            Some((_, since)) if at > since => {
                equal.clear();
                best = Some((class, at));
            }
            Some(_) => {}
            None => best = Some((class, at)),
        }
        if parties.len() <= MAX_CLAIMANTS && !parties.contains(&device) {
            parties.push(device);
        }
        if best == Some((class, at)) && equal.len() <= MAX_CLAIMANTS && !equal.contains(&device) {
            equal.push(device);
        }
    }
    match best {
        Some((class, _)) if parties.len() > MAX_CLAIMANTS => Owner::Shared(class),
        Some((class, since)) => Owner::Devices { equal, class, since },
        None => {
            let strongest = alone.max_by_key(|(class, at)| (*class != ClaimClass::Sweep, *class, *at));
            strongest.map_or(Owner::Nobody, |(class, since)| Owner::Itself { class, since })
        }
    }
}

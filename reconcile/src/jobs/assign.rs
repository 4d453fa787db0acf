//! Which of several agents looks at a target: the one of greatest weight that has room.
//!
//! A weight is a hash of target and agent (rendezvous hashing): an agent more or less changes nothing about the weights of
//! the others. An agent has room for a quarter more than its fair share, and one. So when an agent is lost its targets move,
//! and beside them only such as were not where they weigh most, because there was no room.

/// A stable hash: FNV-1a, then mixed (the finalizer of SplitMix64).
pub fn hash(text: &str) -> u64 {
    let fnv = text.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    mixed(fnv)
}

fn mixed(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// How much a target weighs at an agent.
pub fn weight(target: u64, agent: u64) -> u64 {
    mixed(target ^ agent.rotate_left(17))
}

/// How many targets an agent has at most of so many, of so many agents.
pub fn room(targets: usize, agents: usize, most: usize) -> usize {
    if agents == 0 { 0 } else { (targets * 5).div_ceil(agents * 4).saturating_add(1).min(most) }
}

/// By target the agent that looks at it; `None` where none has room. Both are told by their hashes.
pub fn assign(targets: &[u64], agents: &[u64], most: usize) -> Vec<Option<usize>> {
    let room = room(targets.len(), agents.len(), most);
    let mut load = vec![0; agents.len()];
    let mut order: Vec<usize> = (0..targets.len()).collect();
    order.sort_unstable_by_key(|target| targets[*target]);
    let mut assigned = vec![None; targets.len()];
    for target in order {
        let weight = |agent: &usize| weight(targets[target], agents[*agent]);
        let best = (0..agents.len()).filter(|agent| load[*agent] < room).max_by_key(weight);
        if let Some(agent) = best {
            load[agent] += 1;
            assigned[target] = best;
        }
    }
    assigned
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn preferred(target: u64, agents: &[u64]) -> Option<usize> {
        (0..agents.len()).max_by_key(|agent| weight(target, agents[*agent]))
    }

    proptest! {
        #[test]
        fn a_lost_agent_moves_its_own_targets_and_those_that_were_not_where_they_weigh_most(
            targets in 1usize..400, agents in 2usize..12, lost in 0usize..12,
        ) {
            let targets: Vec<u64> = (0..targets).map(|n| hash(&format!("10.0.{}.{}", n / 256, n % 256))).collect();
            let all: Vec<u64> = (0..agents).map(|n| hash(&format!("agent-{n}"))).collect();
            let lost = lost % agents;
            let mut fewer = all.clone();
            fewer.remove(lost);
            let (before, after) = (assign(&targets, &all, usize::MAX), assign(&targets, &fewer, usize::MAX));
            for (n, target) in targets.iter().enumerate() {
                let (was, is) = (before[n].map(|a| all[a]), after[n].map(|a| fewer[a]));
                let crowded = was != preferred(*target, &all).map(|a| all[a])
                    || is != preferred(*target, &fewer).map(|a| fewer[a]);
                prop_assert!(was == is || was == Some(all[lost]) || crowded);
            }
        }

        #[test]
        fn nobody_has_more_than_room_and_everybody_is_somewhere(targets in 0usize..500, agents in 1usize..20) {
            let targets: Vec<u64> = (0..targets).map(|n| hash(&format!("host-{n}"))).collect();
            let agents: Vec<u64> = (0..agents).map(|n| hash(&format!("agent-{n}"))).collect();
            let assigned = assign(&targets, &agents, usize::MAX);
            prop_assert!(assigned.iter().all(Option::is_some));
            for agent in 0..agents.len() {
                let load = assigned.iter().filter(|a| **a == Some(agent)).count();
                prop_assert!(load <= room(targets.len(), agents.len(), usize::MAX));
            }
        }
    }

    #[test]
    fn beyond_what_agents_take_nobody_is_assigned() {
        let targets: Vec<u64> = (0..10).collect();
        assert_eq!(assign(&targets, &[1, 2], 3).iter().flatten().count(), 6);
        assert_eq!(assign(&targets, &[], 3).iter().flatten().count(), 0);
    }
}

//! Rates against what truly happened, and what is answered in other orders.

use proptest::prelude::*;

use super::*;

const S: i64 = 1_000_000;

fn take(series: &mut Series, second: i64, count: u64, width: Width) -> Answer {
    series.take(Reading { at_us: second * S, count }, width, &Lives::default(), None)
}

#[test]
fn a_counter_rises_wraps_and_begins_again() {
    let rose = |by, seconds: i64| Answer::Rose { by, over_us: seconds * S };
    for (width, top) in [(Width::Bits32, 1 << 32), (Width::Unknown, 1 << 32), (Width::Bits64, 1u128 << 64)] {
        let near = (top - 1000) as u64;
        let mut series = Series::default();
        assert_eq!(take(&mut series, 100, near, width), Answer::None(Why::First));
        assert_eq!(take(&mut series, 160, near + 600, width), rose(600, 60));
        assert_eq!(take(&mut series, 220, 200, width), rose(600, 60), "{width:?} wraps");
        assert_eq!(take(&mut series, 280, 100, width), Answer::None(Why::Reset), "{width:?} begins again");
        assert_eq!(take(&mut series, 340, 700, width), rose(600, 60));
        assert_eq!(take(&mut series, 340 + 3601, 800, width), Answer::None(Why::Gap));
    }
}

#[test]
fn what_comes_late_or_again_is_answered_by_its_time() {
    let mut series = Series::default();
    take(&mut series, 0, 0, Width::Bits64);
    let third = take(&mut series, 120, 1200, Width::Bits64);
    assert_eq!(third, Answer::Rose { by: 1200, over_us: 120 * S });
    let second = take(&mut series, 60, 300, Width::Bits64);
    assert_eq!(second, Answer::Rose { by: 300, over_us: 60 * S });
    assert_eq!(take(&mut series, 120, 1200, Width::Bits64), third, "again");
    assert_eq!(take(&mut series, 120, 1201, Width::Bits64), Answer::None(Why::Conflict));
    assert_eq!(take(&mut series, -60, 0, Width::Bits64), Answer::None(Why::Late));
    assert_eq!(take(&mut series, 180, 1800, Width::Bits64), Answer::Rose { by: 600, over_us: 60 * S });
    assert_eq!(take(&mut series, -120, 0, Width::Bits64), Answer::None(Why::Late), "older than all that is kept");
}

#[test]
fn what_a_line_carries_tells_a_wrap_and_what_may_have_wrapped_twice() {
    let answer = |before: u64, after: u64, seconds: i64, most: f64| {
        let mut series = Series::default();
        take(&mut series, 0, before, Width::Bits32);
        let reading = Reading { at_us: seconds * S, count: after };
        series.take(reading, Width::Bits32, &Lives::default(), Some(most))
    };
    let slow = 100e6 / 8.0;
    assert_eq!(answer(u32::MAX.into(), 99, 60, slow), Answer::Rose { by: 100, over_us: 60 * S });
    assert_eq!(answer(3_600_000_000, 99, 60, slow), Answer::Rose { by: 694_967_395, over_us: 60 * S });
    assert_eq!(answer(1_000_000, 99, 60, slow), Answer::None(Why::Reset), "more than the line carries");
    assert_eq!(answer(0, 99, 60, 1e9 / 8.0), Answer::None(Why::Ambiguous), "a gigabit wraps in 34 seconds");
    assert_eq!(answer(0, 99, 30, 1e9 / 8.0), Answer::Rose { by: 99, over_us: 30 * S });
}

#[test]
fn the_up_time_tells_a_wrap_from_a_beginning() {
    let answer = |lives: &Lives, before: u64, after: u64| {
        let mut series = Series::default();
        take(&mut series, 1000, before, Width::Bits32);
        series.take(Reading { at_us: 1060 * S, count: after }, Width::Bits32, lives, None)
    };
    let mut on = Lives::default();
    on.read_up_time(1000 * S, 50_000);
    on.read_up_time(1060 * S, 56_000);
    assert_eq!(answer(&on, 1_000_000_000, 5), Answer::Rose { by: 3_294_967_301, over_us: 60 * S });
    let mut again = Lives::default();
    again.read_up_time(1000 * S, 50_000);
    again.read_up_time(1060 * S, 1_000);
    assert_eq!(answer(&again, u32::MAX.into(), 5), Answer::None(Why::Reset), "as if it had wrapped");
    assert_eq!(answer(&again, 5, 500), Answer::None(Why::Reset), "as if it had gone on");
    // 497 days are over.
    let mut over = Lives::default();
    over.read_up_time(1000 * S, TICKS - 3_000);
    over.read_up_time(1060 * S, 3_000);
    assert_eq!(answer(&over, 1_000_000_000, 5), Answer::Rose { by: 3_294_967_301, over_us: 60 * S });
    // A counter of 64 bits that falls says the same of all others.
    let mut wide = Series::default();
    take(&mut wide, 1000, 1 << 40, Width::Bits64);
    let fell = wide.falls(Reading { at_us: 1060 * S, count: 7 }, Width::Bits64).unwrap();
    let mut told = Lives::default();
    told.fell(fell.0, fell.1);
    assert_eq!(answer(&told, u32::MAX.into(), 5), Answer::None(Why::Reset));
    assert_eq!(answer(&Lives::default(), u32::MAX.into(), 5), Answer::Rose { by: 6, over_us: 60 * S });
}

/// A device as it truly is: what passes in each second, and when it begins again.
#[derive(Clone, Debug)]
struct Truth {
    /// Units in each step of ten seconds.
    steps: Vec<u64>,
    /// Steps at whose beginning it begins again.
    begins: Vec<bool>,
    /// What it counted at first.
    first: u64,
    /// Which steps are read, in which order.
    reads: Vec<usize>,
}

fn truth(most: u64) -> impl Strategy<Value = Truth> {
    (2usize..40).prop_flat_map(move |n| {
        let steps = prop::collection::vec(0..most, n);
        let begins = prop::collection::vec(prop::bool::weighted(0.1), n);
        let reads = prop::collection::vec(0..n, 1..3 * n);
        (steps, begins, any::<u64>(), reads).prop_map(|(steps, begins, first, reads)| Truth {
            steps,
            begins,
            first,
            reads,
        })
    })
}

const BEGAN: i64 = 1_700_000_000;

impl Truth {
    fn at(step: usize) -> i64 {
        (BEGAN + 10 * step as i64) * S
    }

    /// What the counter says, and `sysUpTime`, after so many steps. It began an hour before.
    fn said(&self, upto: usize, modulus: u128) -> (u64, i64) {
        let (mut count, mut up) = (u128::from(self.first) % modulus, 360_000);
        for step in 0..upto {
            if self.begins[step] {
                (count, up) = (0, 0);
            }
            count = (count + u128::from(self.steps[step])) % modulus;
            up += 1000;
        }
        (count as u64, up)
    }

    /// What passed between two steps; none where it began again.
    fn passed(&self, from: usize, to: usize) -> Option<u128> {
        let began = self.begins[from..to].iter().any(|began| *began);
        (!began).then(|| self.steps[from..to].iter().map(|step| u128::from(*step)).sum())
    }
}

proptest! {
    /// Whatever is read in whatever order: with `sysUpTime` beside it a rate is what truly passed, over the time since the sample
    /// before, and there is none across a beginning. (Over so few steps a counter of 32 bits wraps once at most.)
    #[test]
    fn with_the_up_time_a_rate_is_the_truth(truth in truth(100_000_000), narrow: bool) {
        let (width, modulus) = if narrow { (Width::Bits32, 1 << 32) } else { (Width::Bits64, 1 << 64) };
        let (mut series, mut lives) = (Series::default(), Lives::default());
        let mut seen: Vec<usize> = Vec::new();
        // In order of time, as a poller reads; some are left out, some come again.
        let mut reads = truth.reads.clone();
        reads.sort_unstable();
        for step in reads {
            let (count, up) = truth.said(step, modulus);
            lives.read_up_time(Truth::at(step), up);
            let reading = Reading { at_us: Truth::at(step), count };
            if let Some((after, at)) = series.falls(reading, width) {
                lives.fell(after, at);
            }
            let answer = series.take(reading, width, &lives, None);
            let before = seen.iter().copied().filter(|s| *s < step).max();
            match (answer, before) {
                (Answer::Rose { by, over_us }, Some(before)) => {
                    prop_assert_eq!(over_us, Truth::at(step) - Truth::at(before));
                    prop_assert_eq!(Some(u128::from(by)), truth.passed(before, step));
                }
                (Answer::None(Why::First), None) => {}
                (Answer::None(Why::Reset), Some(before)) => prop_assert_eq!(truth.passed(before, step), None),
                (answer, before) => prop_assert!(false, "{answer:?} after {before:?}"),
            }
            seen.push(step);
        }
    }

    /// In any order and again: each is answered as a walk over all that came before answers it.
    #[test]
    fn any_order_is_answered_as_by_a_naive_walk(truth in truth(1 << 30), narrow: bool) {
        let (width, modulus) = if narrow { (Width::Bits32, 1u128 << 32) } else { (Width::Bits64, 1 << 64) };
        let mut series = Series::default();
        let mut all: Vec<(i64, u64, Answer)> = Vec::new();
        for step in truth.reads.iter().copied() {
            let (count, _) = truth.said(step, modulus);
            let at_us = Truth::at(step);
            let answer = series.take(Reading { at_us, count }, width, &Lives::default(), None);
            all.sort_by_key(|(at, ..)| *at);
            let known = &all[all.len().saturating_sub(KEPT)..];
            let naive = match known.iter().find(|(at, ..)| *at == at_us) {
                Some((.., answered)) => *answered,
                None => match known.iter().rev().find(|(at, ..)| *at < at_us) {
                    None if known.is_empty() => Answer::None(Why::First),
                    None => Answer::None(Why::Late),
                    Some((at, before, _)) => {
                        let by = (u128::from(count) + modulus - u128::from(*before)) % modulus;
                        let wrapped = count < *before;
                        match wrapped && by > modulus / 4 {
                            true => Answer::None(Why::Reset),
                            false => Answer::Rose { by: by as u64, over_us: at_us - at },
                        }
                    }
                },
            };
            prop_assert_eq!(answer, naive);
            let is_known = all.iter().any(|(at, ..)| *at == at_us);
            let is_too_late = naive == Answer::None(Why::Late) && known.len() == KEPT;
            if !is_known && !is_too_late {
                all.push((at_us, count, naive));
            }
        }
    }
}

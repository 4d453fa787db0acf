//! A series as one line of text. Slices of time in which nothing was are there as gaps: they are missing among the rows,
//! and what is missing is told by the times of the others.

/// Columns of a line.
const WIDTH: usize = 60;
/// Where a series has nothing.
const GAP: char = '·';
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The slices that some times are in: their numbers, ascending from 0, and how many slices there are. Slices are not all
/// of one length (months, days of daylight saving), so what counts is the distance of each to the one before it.
pub(crate) fn slices(times: &[i64]) -> (Vec<u64>, u64) {
    let steps = || times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).filter(|step| *step > 0);
    let width = steps().min().unwrap_or(1);
    let mut at = 0u64;
    let mut all: Vec<u64> = times.first().map(|_| 0).into_iter().collect();
    for pair in times.windows(2) {
        let step = pair[1].saturating_sub(pair[0]);
        let slices = (step as f64 / width as f64).round().max(1.0);
        at = at.saturating_add(slices as u64);
        all.push(at);
    }
    (all, if times.is_empty() { 0 } else { at.saturating_add(1) })
}

/// The line of values in slices, of which there are so many: as high as the greatest of them.
pub(crate) fn line(values: &[(u64, Option<f64>)], slices: u64) -> String {
    let columns = slices.clamp(1, WIDTH as u64);
    // Where there are more slices than columns a column shows the greatest of its own.
    let mut greatest: Vec<Option<f64>> = vec![None; columns as usize];
    for (slice, value) in values {
        let column = (u128::from(*slice) * u128::from(columns) / u128::from(slices.max(1))) as usize;
        if let (Some(column), Some(value)) = (greatest.get_mut(column), value) {
            *column = Some(column.map_or(*value, |known| known.max(*value)));
        }
    }
    let some = || greatest.iter().flatten().copied();
    let (low, high) = (some().fold(0.0, f64::min), some().fold(0.0, f64::max));
    let bar = |value: f64| match high > low {
        true => BARS[(((value - low) / (high - low) * 7.0).round() as usize).min(7)],
        false => BARS[0],
    };
    greatest.into_iter().map(|value| value.map_or(GAP, bar)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(values: &[Option<f64>]) -> String {
        let values: Vec<_> = (0..).zip(values.iter().copied()).collect();
        line(&values, values.len() as u64)
    }

    #[test]
    fn a_line_is_as_high_as_its_values_and_has_gaps() {
        assert_eq!(drawn(&[Some(0.0), Some(7.0), None, Some(3.5)]), "▁█·▅");
        assert_eq!(drawn(&[Some(0.0); 3]), "▁▁▁");
        assert_eq!(drawn(&vec![Some(1.0); 600]).chars().count(), WIDTH);
        assert_eq!(line(&[(0, Some(1.0)), (u64::MAX - 1, Some(1.0))], u64::MAX).chars().count(), WIDTH);
        assert_eq!(drawn(&[]), "·");
    }

    #[test]
    fn slices_without_rows_are_counted() {
        let minute = 60_000_000;
        assert_eq!(slices(&[0, minute, 4 * minute]), (vec![0, 1, 4], 5));
        // Months: 31, 29, 31 days, then one that is missing.
        let day = 1440 * minute;
        assert_eq!(slices(&[0, 31 * day, 60 * day, 91 * day, 152 * day]), (vec![0, 1, 2, 3, 5], 6));
        assert_eq!(slices(&[]), (vec![], 0));
        assert_eq!(slices(&[5]), (vec![0], 1));
        assert_eq!(slices(&[i64::MIN, i64::MAX]).0.len(), 2);
    }
}

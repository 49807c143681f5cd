//! Numbers that were read again and again while a case ran: columns over one time axis. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::metric::Statistic;
use crate::samples::Samples;

/// Readings in the order of time. What could not be read is `None`, never 0. A column's name carries its
/// unit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Series {
    /// When each row was read, s from the start of the case.
    pub at_s: Vec<f64>,
    /// By name, as long as the time axis.
    pub columns: BTreeMap<String, Vec<Option<f64>>>,
}

impl Series {
    /// Adds a row; a column that it does not name has no value there.
    pub fn push<'a>(
        &mut self,
        at: Duration,
        row: impl IntoIterator<Item = (&'a str, Option<f64>)>,
    ) {
        let before = self.at_s.len();
        self.at_s.push(at.as_secs_f64());
        for (name, value) in row {
            match self.columns.get_mut(name) {
                Some(column) => column.resize(before, None),
                None => drop(self.columns.insert(name.to_owned(), vec![None; before])),
            }
            self.columns.entry(name.to_owned()).or_default().push(value);
        }
        self.columns.values_mut().for_each(|column| column.resize(before + 1, None));
    }

    /// Whether nothing was read.
    pub fn is_empty(&self) -> bool {
        self.at_s.is_empty()
    }

    /// What was read of a column, without the gaps.
    pub fn values(&self, column: &str) -> impl Iterator<Item = f64> {
        self.columns.get(column).into_iter().flatten().flatten().copied()
    }

    /// A statistic of a column; `None` where nothing of it was read.
    pub fn statistic(&self, column: &str, statistic: Statistic) -> Option<f64> {
        Samples::exact(self.values(column).collect()).statistic(statistic)
    }

    /// The same moved by so many seconds.
    #[must_use]
    pub fn moved(mut self, by_s: f64) -> Self {
        self.at_s.iter_mut().for_each(|at| *at += by_s);
        self
    }

    /// The rows of a stretch of time, its ends among them; where those are fewer than two, with the rows
    /// before and after it.
    #[must_use]
    pub fn within(&self, from_s: f64, to_s: f64) -> Self {
        let mut first = self.at_s.partition_point(|at| *at < from_s);
        let mut last = self.at_s.partition_point(|at| *at <= to_s).max(first);
        if last - first < 2 {
            first = first.saturating_sub(1);
            last = self.at_s.len().min(last + 1);
        }
        let cut = |column: &Vec<Option<f64>>| column[first..last].to_vec();
        Self {
            at_s: self.at_s[first..last].to_vec(),
            columns: self
                .columns
                .iter()
                .map(|(name, column)| (name.clone(), cut(column)))
                .collect(),
        }
    }

    /// Adds the rows of a series that follows this one.
    pub fn append(&mut self, next: Self) {
        let before = self.at_s.len();
        self.at_s.extend(next.at_s);
        for (name, values) in next.columns {
            let column = self.columns.entry(name).or_default();
            column.resize(before, None);
            column.extend(values);
        }
        let rows = self.at_s.len();
        self.columns.values_mut().for_each(|column| column.resize(rows, None));
    }

    /// At most so many rows: each the mean of as many neighbours as it takes, at their mean time.
    #[must_use]
    pub fn decimated(&self, most: usize) -> Self {
        let width = self.at_s.len().div_ceil(most.max(1)).max(1);
        let mean = |values: &mut dyn Iterator<Item = f64>| {
            let (count, sum) =
                values.fold((0, 0.0), |(count, sum), value| (count + 1, sum + value));
            (0 < count).then(|| sum / f64::from(count))
        };
        let thin = |column: &Vec<Option<f64>>| {
            column.chunks(width).map(|chunk| mean(&mut chunk.iter().flatten().copied())).collect()
        };
        let times = self.at_s.chunks(width).filter_map(|chunk| mean(&mut chunk.iter().copied()));
        Self {
            at_s: times.collect(),
            columns: self
                .columns
                .iter()
                .map(|(name, column)| (name.clone(), thin(column)))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn series() -> Series {
        let mut series = Series::default();
        series.push(s(0), [("a", Some(1.0))]);
        series.push(s(1), [("a", Some(3.0)), ("b", Some(10.0))]);
        series.push(s(2), [("b", None)]);
        series
    }

    #[test]
    fn a_column_that_a_row_does_not_name_has_no_value_there() {
        let series = series();
        assert_eq!(series.columns["a"], [Some(1.0), Some(3.0), None]);
        assert_eq!(series.columns["b"], [None, Some(10.0), None]);
    }

    #[test]
    fn a_statistic_is_of_what_was_read() {
        assert_eq!(series().statistic("a", Statistic::Mean), Some(2.0));
        assert_eq!(series().statistic("a", Statistic::Max), Some(3.0));
        assert_eq!(series().statistic("c", Statistic::Max), None);
    }

    #[test]
    fn fewer_rows_are_means_of_neighbours_and_gaps_stay_gaps() {
        let thin = series().decimated(2);
        assert_eq!(thin.at_s, [0.5, 2.0]);
        assert_eq!(thin.columns["a"], [Some(2.0), None]);
        assert_eq!(series().decimated(3), series());
    }

    #[test]
    fn a_stretch_of_time_has_its_own_rows() {
        let part = series().within(1.0, 2.5);
        assert_eq!(part.at_s, [1.0, 2.0]);
        assert_eq!(part.columns["b"], [Some(10.0), None]);
        assert!(Series::default().within(0.0, 1.0).is_empty());
    }

    #[test]
    fn a_stretch_that_is_shorter_than_the_readings_are_apart_has_those_around_it() {
        assert_eq!(series().within(0.2, 0.3).at_s, [0.0, 1.0]);
        assert_eq!(series().within(0.8, 1.3).at_s, [0.0, 1.0, 2.0]);
        assert_eq!(series().within(7.0, 9.0).at_s, [2.0]);
    }

    #[test]
    fn what_follows_is_put_behind() {
        let mut both = series();
        let mut next = Series::default();
        next.push(s(0), [("c", Some(5.0))]);
        both.append(next.moved(9.0));
        assert_eq!(both.at_s, [0.0, 1.0, 2.0, 9.0]);
        assert_eq!(both.columns["c"], [None, None, None, Some(5.0)]);
        assert_eq!(both.columns["a"].len(), 4);
    }
}

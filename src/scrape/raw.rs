//! Metrics that were asked for by their own names. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use globset::GlobSet;

use super::text::Sample;
use crate::series::Series;

/// The most columns; a page can hold any number of series.
pub const MOST_COLUMNS: usize = 200;

/// Their values as they stand on the page.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    wanted: GlobSet,
    /// By name and labels.
    pub series: Series,
    /// Whether there were more than the most columns.
    pub overflowed: bool,
}

impl Raw {
    /// Of the metrics whose names match.
    pub fn new(wanted: GlobSet) -> Self {
        Self { wanted, ..Self::default() }
    }

    /// Whether none are wanted.
    pub fn is_idle(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Adds a look at a page.
    pub fn add(&mut self, at: Duration, samples: &[Sample<'_>]) {
        if self.is_idle() {
            return;
        }
        // When a series was made says nothing of a run.
        let counts = samples.iter().filter(|sample| !sample.name.ends_with("_created"));
        let wanted = counts.filter(|sample| self.wanted.is_match(sample.name.as_ref()));
        let mut row: Vec<(String, Option<f64>)> = Vec::new();
        let mut taken = BTreeSet::new();
        let mut columns = self.series.columns.len();
        for sample in wanted {
            let name = sample.to_string();
            let is_new = !self.series.columns.contains_key(&name);
            if is_new && columns == MOST_COLUMNS {
                self.overflowed = true;
            } else if taken.insert(name.clone()) {
                columns += usize::from(is_new);
                row.push((name, sample.value.is_finite().then_some(sample.value)));
            }
        }
        self.series.push(at, row.iter().map(|(name, value)| (name.as_str(), *value)));
    }
}

#[cfg(test)]
mod tests {
    use globset::Glob;

    use super::super::text::Page;
    use super::*;

    fn wanted(glob: &str) -> Raw {
        Raw::new(GlobSet::builder().add(Glob::new(glob).unwrap()).build().unwrap())
    }

    #[test]
    fn each_series_is_a_column_named_by_its_labels() {
        let mut raw = wanted("vllm:*_total");
        let page = "vllm:a_total{x=\"1\"} 5\nvllm:a_total{x=\"2\"} 6\nvllm:b 7\nvllm:c_total NaN\n";
        raw.add(Duration::ZERO, &Page::parse(page).samples);
        let names: Vec<_> = raw.series.columns.keys().map(String::as_str).collect();
        assert_eq!(names, ["vllm:a_total{x=\"1\"}", "vllm:a_total{x=\"2\"}", "vllm:c_total"]);
        assert_eq!(raw.series.columns["vllm:a_total{x=\"2\"}"], [Some(6.0)]);
        assert_eq!(raw.series.columns["vllm:c_total"], [None]);
    }

    #[test]
    fn the_number_of_columns_is_bounded() {
        let mut raw = wanted("*");
        let page: String = (0..300).map(|i| format!("m{{i=\"{i}\"}} {i}\n")).collect();
        for second in 0..2 {
            raw.add(Duration::from_secs(second), &Page::parse(&page).samples);
        }
        assert!(raw.overflowed);
        assert_eq!(raw.series.columns.len(), MOST_COLUMNS);
        assert!(raw.series.columns.values().all(|column| column.len() == 2));
    }
}

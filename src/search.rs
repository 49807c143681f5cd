//! Where to look next for the highest rate at which the objectives hold, and which rates draw the curve from
//! idle to saturation. Pure: what a rate brought is told from outside.

/// Where a search begins, as a share of the rate at saturation: most servers hold their objectives a
/// little below it.
const BEGIN: f64 = 0.8;
/// How far up a search goes at once while nothing has failed.
const UP: f64 = 1.25;
/// And down while nothing has held.
const DOWN: f64 = 0.5;
/// Below this share of the rate at saturation nothing is looked for.
const LEAST: f64 = 0.01;
/// The highest rate of a sweep, as a share of that at saturation: the curve is to show what lies behind
/// the knee.
const BEHIND: f64 = 1.15;

/// What a step at some rate brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Every objective held.
    Holds,
    /// One did not, or nobody can say that it did.
    Fails,
}

/// A bracketed search for the highest rate that holds. It ends when the rates between which that lies are
/// near each other, and each has been seen twice: the answer is an interval, not a point.
#[derive(Clone, Debug)]
pub struct Search {
    /// The rate at saturation.
    saturation_per_s: f64,
    /// How near the ends of the interval are to come, as a share.
    precision: f64,
    /// Steps that may still be made.
    left: usize,
    /// Each rate that was tried, with what it brought.
    seen: Vec<(f64, Found)>,
}

/// What a search knows: the highest rate lies between the two.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bracket {
    /// The highest rate that held; `None` where none did.
    pub low_per_s: Option<f64>,
    /// The lowest rate above it that failed; `None` where none did.
    pub high_per_s: Option<f64>,
}

impl Bracket {
    /// Notes what a rate brought that is above all before it: a rate that holds outweighs lower ones that
    /// did not.
    pub fn note_the_highest(&mut self, per_s: f64, holds: bool) {
        if holds {
            *self = Self { low_per_s: Some(per_s), high_per_s: None };
        } else {
            self.high_per_s.get_or_insert(per_s);
        }
    }

    /// Notes what a rate brought that is above all before it: the first failure ends what holds.
    pub fn note_in_order(&mut self, per_s: f64, holds: bool) {
        match (holds, self.high_per_s) {
            (true, None) => self.low_per_s = Some(per_s),
            (false, None) => self.high_per_s = Some(per_s),
            (_, Some(_)) => {}
        }
    }
}

impl Search {
    /// A search around `saturation_per_s`, the rate at which a server answers that has all it can take.
    pub fn new(saturation_per_s: f64, precision: f64, steps: usize) -> Self {
        Self { saturation_per_s, precision, left: steps, seen: Vec::new() }
    }

    /// Notes what a rate brought.
    pub fn note(&mut self, per_s: f64, found: Found) {
        self.left = self.left.saturating_sub(1);
        self.seen.push((per_s, found));
    }

    /// What is known by now. Steps that contradict each other are settled by the later one: a rate that
    /// failed when it was tried again did not hold.
    pub fn bracket(&self) -> Bracket {
        let mut bracket = Bracket { low_per_s: None, high_per_s: None };
        for &(per_s, found) in &self.seen {
            match found {
                Found::Holds => {
                    if bracket.high_per_s.is_some_and(|high| high <= per_s) {
                        bracket.high_per_s = self.next_above(per_s, Found::Fails);
                    }
                    bracket.low_per_s = Some(bracket.low_per_s.map_or(per_s, |low| low.max(per_s)));
                }
                Found::Fails => {
                    if bracket.low_per_s.is_some_and(|low| per_s <= low) {
                        bracket.low_per_s = self.next_below(per_s, Found::Holds);
                    }
                    bracket.high_per_s =
                        Some(bracket.high_per_s.map_or(per_s, |high| high.min(per_s)));
                }
            }
        }
        bracket
    }

    fn next_above(&self, per_s: f64, wanted: Found) -> Option<f64> {
        let rates = self.seen.iter().filter(|(rate, found)| per_s < *rate && *found == wanted);
        rates.map(|(rate, _)| *rate).reduce(f64::min)
    }

    fn next_below(&self, per_s: f64, wanted: Found) -> Option<f64> {
        let rates = self.seen.iter().filter(|(rate, found)| *rate < per_s && *found == wanted);
        rates.map(|(rate, _)| *rate).reduce(f64::max)
    }

    fn times(&self, per_s: f64) -> usize {
        self.seen.iter().filter(|(rate, _)| *rate == per_s).count()
    }

    /// The next rate to try; `None` where the search has ended.
    pub fn next(&self) -> Option<f64> {
        if self.left == 0 {
            return None;
        }
        match self.bracket() {
            Bracket { low_per_s: None, high_per_s: None } => {
                Some(rounded(self.saturation_per_s * BEGIN))
            }
            Bracket { low_per_s: Some(low), high_per_s: None } => Some(rounded(low * UP)),
            Bracket { low_per_s: None, high_per_s: Some(high) } => {
                let next = rounded(high * DOWN);
                (self.saturation_per_s * LEAST <= next && next < high).then_some(next)
            }
            Bracket { low_per_s: Some(low), high_per_s: Some(high) } => {
                let between = rounded((low * high).sqrt());
                let is_wide = low * (1.0 + self.precision) < high;
                if is_wide && low < between && between < high {
                    return Some(between);
                }
                // What was seen once may have been chance.
                [low, high].into_iter().find(|&end| self.times(end) < 2)
            }
        }
    }
}

/// The next rate of a sweep whose last one, `per_s`, was not yet beyond saturation.
pub fn farther(per_s: f64) -> f64 {
    rounded(per_s * UP)
}

/// The rates of a sweep of so many steps, from that of one user to beyond saturation.
pub fn sweep(idle_per_s: f64, saturation_per_s: f64, steps: usize) -> Vec<f64> {
    let (from, to) = (idle_per_s.min(saturation_per_s), saturation_per_s * BEHIND);
    let last = steps.max(2) - 1;
    let share = |step: usize| step as f64 / last as f64;
    let mut rates: Vec<f64> =
        (0..=last).map(|step| rounded(from + (to - from) * share(step))).collect();
    rates.dedup();
    rates
}

/// Three digits of a rate: enough, and a case can be named by it.
fn rounded(per_s: f64) -> f64 {
    let digits = (2 - per_s.log10().floor() as i32).clamp(0, 9) as usize;
    format!("{per_s:.digits$}").parse().unwrap_or(per_s)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Searches a server that holds up to `capacity`; returns the steps and the bracket.
    fn search(capacity: f64, saturation: f64, steps: usize) -> (usize, Bracket) {
        let mut search = Search::new(saturation, 0.05, steps);
        let mut made = 0;
        while let Some(rate) = search.next() {
            let found = if rate <= capacity { Found::Holds } else { Found::Fails };
            search.note(rate, found);
            made += 1;
        }
        (made, search.bracket())
    }

    #[test]
    fn the_highest_rate_is_found_within_its_precision_and_few_steps() {
        for capacity in [30.0, 62.0, 81.0, 99.0, 104.0, 130.0] {
            let (steps, bracket) = search(capacity, 100.0, 11);
            let (low, high) = (bracket.low_per_s.unwrap(), bracket.high_per_s.unwrap());
            assert!(low <= capacity && capacity < high, "{capacity}: {bracket:?}");
            assert!(high / low <= 1.055, "{capacity}: {bracket:?}");
            assert!(steps <= 11, "{capacity}: {steps}");
        }
    }

    #[test]
    fn a_server_that_holds_nothing_ends_the_search() {
        let (steps, bracket) = search(0.0, 100.0, 40);
        assert_eq!(bracket.low_per_s, None);
        assert!(steps <= 8, "{steps}");
    }

    #[test]
    fn a_rate_that_held_by_chance_is_found_out() {
        let mut search = Search::new(100.0, 0.05, 12);
        let mut lucky = true;
        while let Some(rate) = search.next() {
            // The server holds 70; 80 held once.
            let held = rate <= 70.0 || (rate == 80.0 && std::mem::take(&mut lucky));
            search.note(rate, if held { Found::Holds } else { Found::Fails });
        }
        let bracket = search.bracket();
        assert!(bracket.low_per_s.is_none_or(|low| low <= 70.0), "{bracket:?}");
        assert!(bracket.high_per_s.unwrap() <= 81.0, "{bracket:?}");
    }

    #[test]
    fn a_sweep_goes_from_idle_to_beyond_saturation() {
        let rates = sweep(2.0, 40.0, 8);
        assert_eq!((rates.len(), rates[0], rates[7]), (8, 2.0, 46.0));
        assert!(rates.is_sorted());
    }

    proptest! {
        #[test]
        fn whatever_is_seen_the_bracket_is_in_order_and_the_search_ends(
            found in proptest::collection::vec(any::<bool>(), 40),
            saturation in 0.01..10_000.0_f64,
        ) {
            let mut search = Search::new(saturation, 0.05, 12);
            let mut steps = 0;
            while let Some(rate) = search.next() {
                prop_assert!(0.0 < rate && rate.is_finite());
                search.note(rate, if found[steps] { Found::Holds } else { Found::Fails });
                steps += 1;
            }
            prop_assert!(steps <= 12);
            if let Bracket { low_per_s: Some(low), high_per_s: Some(high) } = search.bracket() {
                prop_assert!(low < high);
            }
        }
    }
}

//! Energy of a device that does not count it. Pure.

use super::query::{ENERGY_J, POWER_W};
use super::{Energy, Gpu};

impl Gpu {
    /// Says where its energy comes from. One that counts none is given the column from its power, 0 at the
    /// first reading of that.
    pub(super) fn settle_energy(&mut self) {
        if self.readings.columns.contains_key(ENERGY_J) {
            self.energy = Some(Energy::Counter);
        } else if let Some(power_w) = self.readings.columns.get(POWER_W) {
            let energy_j = integral(&self.readings.at_s, power_w);
            self.readings.columns.insert(ENERGY_J.to_owned(), energy_j);
            self.unread.remove(ENERGY_J);
            self.energy = Some(Energy::IntegratedPower);
        }
    }
}

/// The sum of the trapezoids up to each value. One that is missing is bridged by its neighbours.
fn integral(at_s: &[f64], values: &[Option<f64>]) -> Vec<Option<f64>> {
    let mut sum = 0.0;
    let mut last: Option<(f64, f64)> = None;
    let mut up_to = |at_s: f64, value: f64| {
        if let Some((before_s, before)) = last.replace((at_s, value)) {
            sum += (at_s - before_s) * f64::midpoint(before, value);
        }
        sum
    };
    at_s.iter().zip(values).map(|(at_s, value)| value.map(|value| up_to(*at_s, value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_bridged_by_its_neighbours() {
        let power_w = [None, Some(100.0), Some(200.0), None, Some(200.0)];
        let energy_j = integral(&[0.0, 1.0, 2.0, 3.0, 4.0], &power_w);
        assert_eq!(energy_j, [None, Some(0.0), Some(150.0), None, Some(550.0)]);
    }
}

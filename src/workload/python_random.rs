//! Python's `random.seed` and `random.shuffle`, so that a seed picks the requests that it picks in
//! the scripts that this crate replaces. Pure.

use rand_mt::Mt;

/// Shuffles as `random.seed(seed); random.shuffle(items)` does in CPython 3.
pub(super) fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut random = PythonRandom::new(seed);
    for last in (1..items.len()).rev() {
        items.swap(last, below(&mut random.0, last + 1));
    }
}

/// The generator of Python's module `random`.
pub(super) struct PythonRandom(Mt);

impl PythonRandom {
    /// As after `random.seed(seed)`.
    pub(super) fn new(seed: u64) -> Self {
        Self(Mt::new_with_key(words(seed)))
    }

    /// What `random.choices(items, k=count)` gives.
    pub(super) fn choices<T: Copy>(&mut self, items: &[T], count: usize) -> Vec<T> {
        (0..count).map(|_| items[(self.random() * items.len() as f64) as usize]).collect()
    }

    /// What `random.random()` gives: 53 random bits as a part of 1.
    fn random(&mut self) -> f64 {
        let (high, low) = (self.0.next_u32() >> 5, self.0.next_u32() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }
}

/// The seed as 32-bit words, the lowest first; zero is one word.
fn words(seed: u64) -> impl Iterator<Item = u32> + Clone {
    let (low, high) = (seed as u32, (seed >> 32) as u32);
    [low, high].into_iter().take(if high == 0 { 1 } else { 2 })
}

/// A number below `bound`: as many random bits as `bound` has, drawn again until they fit.
fn below(random: &mut Mt, bound: usize) -> usize {
    let bits = usize::BITS - bound.leading_zeros();
    assert!(bits <= 32, "a dataset of over 4 billion conversations");
    loop {
        let drawn = (random.next_u32() >> (32 - bits)) as usize;
        if drawn < bound {
            return drawn;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shuffled(length: usize, seed: u64) -> Vec<usize> {
        let mut items: Vec<usize> = (0..length).collect();
        shuffle(&mut items, seed);
        items
    }

    /// The expected orders were printed by CPython 3.11.
    #[test]
    fn the_order_is_that_of_python() {
        assert_eq!(shuffled(10, 0), [7, 8, 1, 5, 3, 4, 2, 0, 9, 6]);
        assert_eq!(shuffled(10, 12_345_678_901), [8, 7, 3, 1, 0, 4, 2, 6, 5, 9]);
        let long = shuffled(1000, 42);
        assert_eq!(long[..5], [776, 507, 895, 922, 33]);
        assert_eq!(long[997..], [25, 114, 654]);
    }

    #[test]
    fn the_choices_are_those_of_python() {
        let items: Vec<usize> = (0..1000).collect();
        assert_eq!(PythonRandom::new(0).choices(&items, 5), [844, 757, 420, 258, 511]);
    }
}

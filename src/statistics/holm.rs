//! Many tests at once.

/// Which hypotheses are rejected so that the chance of even one false rejection is at most `alpha`, however
/// the tests depend on each other: the smallest of `m` p-values is held against `alpha / m`, the next
/// against `alpha / (m − 1)`, and so on until one fails.
///
/// Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6
/// (1979).
pub(super) fn rejected(p_values: &[f64], alpha: f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut rejected = vec![false; p_values.len()];
    for (rank, index) in order.into_iter().enumerate() {
        let limit = alpha / (p_values.len() - rank) as f64;
        // What is no number is no evidence.
        if p_values[index].is_nan() || limit < p_values[index] {
            break;
        }
        rejected[index] = true;
    }
    rejected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_test_is_held_against_alpha_itself() {
        assert_eq!(rejected(&[0.04], 0.05), [true]);
        assert_eq!(rejected(&[0.06], 0.05), [false]);
        assert_eq!(rejected(&[], 0.05), [false; 0]);
    }

    #[test]
    fn each_rejection_makes_the_next_one_easier() {
        assert_eq!(rejected(&[0.04, 0.01, 0.024], 0.05), [true, true, true]);
        assert_eq!(rejected(&[0.04, 0.02, 0.024], 0.05), [false, false, false]);
        assert_eq!(rejected(&[0.04, 0.01, 0.03], 0.05), [false, true, false]);
    }

    #[test]
    fn what_is_no_number_rejects_nothing() {
        assert_eq!(rejected(&[f64::NAN, 0.01], 0.05), [false, true]);
    }
}

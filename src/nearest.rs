//! The nearest of the known names to one that is unknown: most unknown names are typing errors. Pure.

/// A longer word is no typing error of a name, and comparing takes time by the product of the lengths.
const LONGEST: usize = 100;
/// How alike two words are from where on one may stand for the other.
const ALIKE: f64 = 0.6;

/// The candidate that `word` most resembles, the first of equals; `None` where it resembles none.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if LONGEST < word.len() {
        return None;
    }
    let short = candidates.into_iter().filter(|candidate| candidate.len() <= LONGEST);
    let likeness = |candidate: &&str| {
        let folded = (word.to_lowercase(), candidate.to_lowercase());
        strsim::normalized_damerau_levenshtein(&folded.0, &folded.1)
    };
    let alike = short.map(|candidate| (likeness(&candidate), candidate));
    let best = alike.min_by(|one, other| other.0.total_cmp(&one.0))?;
    (ALIKE <= best.0).then_some(best.1)
}

/// `; did you mean ...?` for the end of an error about `word`; empty where no candidate resembles it.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(word, candidates) {
        Some(candidate) => format!("; did you mean `{candidate}`?"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_is_near_the_word_that_was_meant_and_another_word_is_not() {
        let known = ["ttft.p99", "tpot.p99", "output_throughput", "error_ratio"];
        for (word, meant) in [
            ("ttft.p9x", Some("ttft.p99")),
            ("tfft.p99", Some("ttft.p99")),
            ("output_thruput", Some("output_throughput")),
            ("ERROR_RATIO", Some("error_ratio")),
            ("banana", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), meant, "{word}");
        }
        assert_eq!(did_you_mean("eror_ratio", known), "; did you mean `error_ratio`?");
        assert_eq!(did_you_mean("x", known), "");
        assert_eq!(nearest("ttf", ["ttft", "ttfa"]), Some("ttft"), "the first of equals");
        assert_eq!(nearest(&"error_ratio".repeat(10_000), known), None, "and it takes no time");
    }
}

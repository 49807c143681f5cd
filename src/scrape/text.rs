//! Prometheus' text format, version 0.0.4, and OpenMetrics' text as far as it holds samples. Pure.
//!
//! The parsers on crates.io do not do: `prometheus-parse` takes no `:` in a name, so that it reads
//! nothing of vLLM, and splits labels at every comma; `nom-openmetrics` gives a page up at its first
//! odd line; `openmetrics-parser` is under the LGPL.

use std::borrow::Cow;
use std::fmt;

/// One value of a page.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample<'a> {
    /// Of the metric, with the ending that the format gives it (`_total`, `_bucket`).
    pub name: Cow<'a, str>,
    /// What tells it from the other values of the metric, in the page's order.
    pub labels: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// The value, which may be no number.
    pub value: f64,
}

impl Sample<'_> {
    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        let found = self.labels.iter().find(|(label, _)| label == name);
        found.map(|(_, value)| value.as_ref())
    }

    /// What tells its series from the others of the metric, in whatever order the labels stand. All buckets of a
    /// histogram are one.
    pub fn series(&self) -> String {
        let mut labels: Vec<_> = self.labels.iter().filter(|(label, _)| label != "le").collect();
        labels.sort();
        let labels = labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value)));
        labels.collect::<Vec<_>>().join(",")
    }
}

/// As the format writes it, without the value.
impl fmt::Display for Sample<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (place, (label, value)) in self.labels.iter().enumerate() {
            let before = if place == 0 { '{' } else { ',' };
            write!(f, "{before}{label}=\"{}\"", escaped(value))?;
        }
        if self.labels.is_empty() { Ok(()) } else { f.write_str("}") }
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// What a page holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page<'a> {
    /// Its values, in order.
    pub samples: Vec<Sample<'a>>,
    /// Lines that are neither a value nor a comment.
    pub malformed: usize,
}

impl<'a> Page<'a> {
    /// Reads a page. A line that is not of the format is skipped and counted.
    pub fn parse(text: &'a str) -> Self {
        let mut page = Self::default();
        for line in text.lines() {
            let mut rest = Rest(line.trim_ascii());
            if rest.0.is_empty() || rest.0.starts_with('#') {
                continue;
            }
            match rest.sample() {
                Some(sample) => page.samples.push(sample),
                None => page.malformed += 1,
            }
        }
        page
    }
}

/// What is left of a line.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn skip_blanks(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    /// Takes `text` if it is next.
    fn eat(&mut self, text: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(text)?;
        Some(())
    }

    fn take_while(&mut self, of_it: impl Fn(char) -> bool) -> &'a str {
        let end = self.0.find(|character| !of_it(character)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    /// Letters, digits, `_` and `:`, with no digit first.
    fn name(&mut self) -> Option<Cow<'a, str>> {
        let name = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
        let first = name.bytes().next()?;
        (!first.is_ascii_digit()).then_some(Cow::Borrowed(name))
    }

    fn sample(&mut self) -> Option<Sample<'a>> {
        // A name that has other characters is quoted, and within the braces.
        let mut name = if self.0.starts_with('{') { None } else { Some(self.name()?) };
        self.skip_blanks();
        let mut labels = Vec::new();
        if self.eat("{").is_some() {
            self.labels(&mut name, &mut labels)?;
            self.skip_blanks();
        }
        let value = self.take_while(|c| !c.is_ascii_whitespace()).parse().ok()?;
        self.skip_blanks();
        // What may follow is a time, and `#` with an example of what was counted.
        if !self.0.is_empty() && !self.0.starts_with('#') {
            let _time: f64 = self.take_while(|c| !c.is_ascii_whitespace()).parse().ok()?;
            self.skip_blanks();
        }
        let ended = self.0.is_empty() || self.0.starts_with('#');
        ended.then_some(Sample { name: name?, labels, value })
    }

    fn labels(
        &mut self,
        name: &mut Option<Cow<'a, str>>,
        labels: &mut Vec<(Cow<'a, str>, Cow<'a, str>)>,
    ) -> Option<()> {
        loop {
            self.skip_blanks();
            if self.eat("}").is_some() {
                return Some(());
            }
            let label = if self.0.starts_with('"') { self.quoted()? } else { self.name()? };
            self.skip_blanks();
            if self.eat("=").is_some() {
                self.skip_blanks();
                labels.push((label, self.quoted()?));
            } else if name.is_none() {
                *name = Some(label);
            } else {
                return None;
            }
            self.skip_blanks();
            if self.eat(",").is_none() && !self.0.starts_with('}') {
                return None;
            }
        }
    }

    fn quoted(&mut self) -> Option<Cow<'a, str>> {
        self.eat("\"")?;
        let mut text = Cow::Borrowed("");
        loop {
            let plain = self.take_while(|c| c != '"' && c != '\\');
            if text.is_empty() {
                text = Cow::Borrowed(plain);
            } else {
                text.to_mut().push_str(plain);
            }
            if self.eat("\"").is_some() {
                return Some(text);
            }
            self.eat("\\")?;
            let mut characters = self.0.chars();
            match characters.next()? {
                'n' => text.to_mut().push('\n'),
                same @ ('"' | '\\') => text.to_mut().push(same),
                other => text.to_mut().extend(['\\', other]),
            }
            self.0 = characters.as_str();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn only(line: &str) -> Sample<'_> {
        let mut page = Page::parse(line);
        assert_eq!((page.samples.len(), page.malformed), (1, 0), "{line}");
        page.samples.remove(0)
    }

    #[test]
    fn a_line_is_a_name_labels_and_a_value() {
        let sample = only(r#"vllm:x_total { engine = "0" , model="a/b" , } 1.5e+03 1700000000123"#);
        assert_eq!(sample.name, "vllm:x_total");
        assert_eq!(sample.label("engine"), Some("0"));
        assert_eq!(sample.label("model"), Some("a/b"));
        assert_eq!(sample.label("other"), None);
        assert_eq!(sample.value, 1500.0);
        assert_eq!(only("up 1").to_string(), "up");
        assert_eq!(only("up{} 1").labels, []);
        assert_eq!(only("\tup\t1\r").value, 1.0);
    }

    #[test]
    fn a_series_is_the_same_in_whatever_order_its_labels_stand() {
        let series = |line| only(line).series();
        assert_eq!(series(r#"m{b="2",a="1"} 1"#), r#"a="1",b="2""#);
        assert_eq!(series(r#"m_bucket{a="1",le="5",b="2"} 1"#), r#"a="1",b="2""#);
        assert_eq!(series("m 1"), "");
    }

    #[test]
    fn label_values_hold_what_else_would_end_them() {
        let line = r#"m{a="},=\"{",b="c:\\d\ne\q",c="日本"} 1"#;
        let sample = only(line);
        assert_eq!(sample.label("a"), Some("},=\"{"));
        assert_eq!(sample.label("b"), Some("c:\\d\ne\\q"));
        assert_eq!(sample.label("c"), Some("日本"));
    }

    #[test]
    fn values_may_be_infinite_or_no_number() {
        assert_eq!(only("m +Inf").value, f64::INFINITY);
        assert_eq!(only("m -Inf").value, f64::NEG_INFINITY);
        assert!(only("m NaN").value.is_nan());
        assert_eq!(only("m 9.223372036854775794e+18").value, 9_223_372_036_854_775_794.0);
    }

    #[test]
    fn an_exemplar_and_a_name_in_quotes_are_no_obstacle() {
        let sample =
            only(r#"h_bucket{le="0.1"} 8 1520879607.789 # {trace_id="a b"} 0.054 1520879607.7"#);
        assert_eq!((sample.label("le"), sample.value), (Some("0.1"), 8.0));
        assert_eq!(only(r#"h_count 3 # {} 1"#).value, 3.0);
        let sample = only(r#"{"max.serve",a="b"} 2"#);
        assert_eq!((sample.name.as_ref(), sample.label("a")), ("max.serve", Some("b")));
    }

    #[test]
    fn what_is_not_of_the_format_is_skipped_and_counted() {
        let bad = [
            "<html>",
            "m",
            "m x",
            "m{",
            "m{a} 1",
            "m{a=\"b} 1",
            "m{a=b} 1",
            "m{a=\"b\" c=\"d\"} 1",
            "1m 2",
            "m 1 x",
            "m 1 2 3",
            "{a=\"b\"} 1",
            "m{a=\"b\"}",
            "é 1",
            "m{a=\"\\",
        ];
        for line in bad {
            let page = Page::parse(line);
            assert_eq!((page.samples.len(), page.malformed), (0, 1), "{line}");
        }
        let page = Page::parse("# HELP m x\n# TYPE m counter\n\nm 1\nm{\nm 2\n# EOF\n");
        assert_eq!((page.samples.len(), page.malformed), (2, 1));
    }

    proptest! {
        #[test]
        fn no_text_is_an_obstacle(text in ".{0,200}") {
            let lines = text.lines().count();
            let page = Page::parse(&text);
            prop_assert!(page.samples.len() + page.malformed <= lines);
        }

        #[test]
        fn what_is_written_is_read_back(
            name in "[a-zA-Z_:][a-zA-Z0-9_:]{0,20}",
            labels in prop::collection::vec(("[a-z_]{1,8}", "[^\r]{0,12}"), 0..5),
            value in prop::num::f64::ANY,
            time in prop::option::of(any::<i64>()),
        ) {
            let own = |text: String| Cow::<str>::Owned(text);
            let labels = labels.into_iter().map(|(label, value)| (own(label), own(value)));
            let written = Sample { name: own(name), labels: labels.collect(), value };
            let time = time.map_or(String::new(), |time| format!(" {time}"));
            let line = format!("{written} {value}{time}");
            let page = Page::parse(&line);
            prop_assert_eq!(page.malformed, 0, "{}", line);
            let read = &page.samples[0];
            prop_assert_eq!((&read.name, &read.labels), (&written.name, &written.labels));
            prop_assert!(read.value == value || (read.value.is_nan() && value.is_nan()));
        }
    }
}

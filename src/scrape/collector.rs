//! Everything that the looks at one address have told so far. Pure.

use std::time::Duration;

use super::Scraped;
use super::fetch::Failure;
use super::gpus::SeenGpus;
use super::raw::{MOST_COLUMNS, Raw};
use super::reading::Reading;
use super::server::Seen;
use super::text::Page;

/// What was read, and what was not.
#[derive(Debug)]
pub struct Collector {
    /// The address, without what is secret in it.
    shown: String,
    server: Seen,
    gpus: SeenGpus,
    raw: Raw,
    scrapes: u64,
    failures: u64,
    /// Why the first that failed did.
    reason: Option<String>,
    malformed: usize,
    /// How long looks took, in all and at most.
    spent: Duration,
    longest: Duration,
}

/// A look that takes longer may hold up a server that makes the page between its other work.
const LONG: Duration = Duration::from_millis(100);

impl Collector {
    /// Nothing was read of the address yet. Rates are of no shorter time than `shortest`.
    pub fn new(shown: String, raw: Raw, shortest: Duration) -> Self {
        Self {
            shown,
            server: Seen::new(shortest),
            gpus: SeenGpus::default(),
            raw,
            scrapes: 0,
            failures: 0,
            reason: None,
            malformed: 0,
            spent: Duration::ZERO,
            longest: Duration::ZERO,
        }
    }

    /// Adds a look. Whether there is a point in another.
    pub fn add(&mut self, look: Result<(Duration, String), Failure>) -> bool {
        match look {
            Ok((at, text)) => {
                self.scrapes += 1;
                self.read(at, &text);
                true
            }
            Err(failure) => {
                self.failures += 1;
                let (reason, go_on) = match failure {
                    Failure::Gap(reason) => (reason, true),
                    Failure::ForGood(reason) => (reason, false),
                };
                self.reason.get_or_insert(reason);
                go_on
            }
        }
    }

    /// Notes how long a look took.
    pub fn took(&mut self, time: Duration) {
        self.spent += time;
        self.longest = self.longest.max(time);
    }

    fn read(&mut self, at: Duration, text: &str) {
        let page = Page::parse(text);
        self.malformed += page.malformed;
        self.server.add(at, &Reading::of(&page.samples));
        self.gpus.add(at, &page.samples);
        self.raw.add(at, &page.samples);
    }

    /// What came of it.
    pub fn finish(self) -> Scraped {
        let warnings = self.warnings();
        let absent = (self.scrapes == 0).then(|| {
            let reason = self.reason.as_deref().unwrap_or("the case was over before");
            format!("the metrics at {} were not read: {reason}", self.shown)
        });
        Scraped {
            engine: self.server.engine,
            server: self.server.series,
            histograms: self.server.histograms,
            refused: self.server.refused,
            spent: self.spent,
            longest: self.longest,
            gpus: self.gpus.into_all(),
            raw: self.raw.series,
            absent,
            warnings,
            scrapes: self.scrapes,
            failures: self.failures,
        }
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let shown = &self.shown;
        if let Some(reason) = &self.reason {
            let all = self.scrapes + self.failures;
            let failed = self.failures;
            warnings.push(format!(
                "the metrics at {shown} were not read {failed} of {all} times: {reason}"
            ));
        }
        if LONG < self.longest {
            warnings.push(format!(
                "a reading of the metrics at {shown} took up to {:.1} s, and a server that makes the page between \
                 its requests is slower meanwhile: set a longer `metrics = {{ interval = … }}`, or `metrics = false`",
                self.longest.as_secs_f64()
            ));
        }
        if 0 < self.server.growth.restarts {
            warnings.push(format!(
                "the counts at {shown} began anew {} times, as where the server or one of its replicas was restarted; \
                 what they had counted since the reading before is lost",
                self.server.growth.restarts
            ));
        }
        if 0 < self.malformed {
            let lines = self.malformed;
            warnings.push(format!(
                "{lines} lines of {shown} are not of Prometheus' text format and were skipped"
            ));
        }
        let unknown = self.server.engine.is_none() && self.gpus.is_empty() && self.raw.is_idle();
        if 0 < self.scrapes && unknown {
            warnings.push(format!("{shown} holds no metric whose name is known"));
        }
        if self.raw.overflowed {
            warnings.push(format!(
                "more series of {shown} match than the {MOST_COLUMNS} that are kept"
            ));
        }
        warnings
    }
}

//! Prometheus metrics of a server or of its GPUs, read again and again while a case runs: what the server
//! itself says of its queue, its cache and its latencies.

use std::collections::BTreeMap;
use std::sync::mpsc as std_mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use globset::GlobSet;
use tokio::sync::oneshot;
use url::Url;

use crate::clock::Clock;
use crate::secret::Secret;
use crate::series::Series;
use crate::tls::TlsOptions;

mod collector;
mod fetch;
mod gpus;
mod growth;
mod histogram;
mod latencies;
mod names;
mod raw;
mod reading;
mod server;
#[cfg(test)]
mod tests;
mod text;

use collector::Collector;
use fetch::Fetcher;

pub use gpus::Gpu;
pub use histogram::{Estimate, Histogram, HistogramFigures};
pub use latencies::Latencies;
#[cfg(test)]
pub(crate) use latencies::tests::counted as counted_latencies;
pub use names::Timing;
pub use server::accepted_at;

/// How often a server is looked at, where nothing else is said.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);

/// After a look nothing is read for so many times as long as it took: reading takes at most a 20th of the time.
const BACK_OFF: u32 = 19;

/// How long the last look may hold up the end of the case.
const EDGE: Duration = Duration::from_secs(1);

/// Where to look, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The page of metrics.
    pub url: Url,
    /// From one look to the next. A look that takes longer has the next wait.
    pub interval: Duration,
    /// How long a look may take.
    pub timeout: Duration,
    /// Metrics whose values are wanted as they are, by their names on the page.
    pub raw: GlobSet,
    /// Sent with each look.
    pub headers: Vec<(String, Secret)>,
    /// Whom to trust.
    pub tls: TlsOptions,
}

impl Options {
    /// A look each second at `url`.
    pub fn new(url: Url) -> Self {
        let options = Self {
            url,
            interval: DEFAULT_INTERVAL,
            timeout: DEFAULT_INTERVAL,
            raw: GlobSet::empty(),
            headers: Vec::new(),
            tls: TlsOptions::default(),
        };
        options.every(DEFAULT_INTERVAL)
    }

    /// The same at another interval; a look may take twice as long, but from half a second to two.
    #[must_use]
    pub fn every(self, interval: Duration) -> Self {
        let timeout = (2 * interval).clamp(Duration::from_millis(500), Duration::from_secs(2));
        Self { interval, timeout, ..self }
    }

    /// The address without what may be secret in it.
    fn shown(&self) -> String {
        let mut url = self.url.clone();
        // A URL that has no room for them has none of them.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_query(None);
        url.set_fragment(None);
        url.to_string()
    }
}

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct Scraped {
    /// The engine whose names the page uses.
    pub engine: Option<&'static str>,
    /// The server's columns, as far as it has them: `requests_running`, `requests_waiting`,
    /// `kv_cache_usage` and `spec_acceptance` (from 0 to 1), `spec_length`; counts since the first look
    /// (`preemptions`, `prompt_tokens`, `generation_tokens`, `prefix_cache_queries`, `prefix_cache_hits`,
    /// `spec_drafts`, `spec_draft_tokens`, `spec_accepted_tokens`, and `spec_accepted_tokens_at_0` for each place
    /// in a draft); and of the time since the look before `prefix_cache_hit_ratio` (of prompt tokens), `prompt_tokens_per_s`,
    /// `generation_tokens_per_s`. Those of several engines are added, of shares it is the mean. A count that
    /// falls has begun anew: that is seen of each series for itself, and counts from 0.
    pub server: Series,
    /// Why columns hold no value although the server tells one.
    pub refused: BTreeMap<String, String>,
    /// How long all looks took, and the longest.
    pub spent: Duration,
    /// See `spent`.
    pub longest: Duration,
    /// What the server's own histograms counted between the first look and the last.
    pub histograms: Latencies,
    /// The GPUs that the page shows.
    pub gpus: Vec<Gpu>,
    /// The metrics that were asked for, by name and labels.
    pub raw: Series,
    /// Why nothing was read at all.
    pub absent: Option<String>,
    /// What a reader should know, that reason among it.
    pub warnings: Vec<String>,
    /// Looks that succeeded.
    pub scrapes: u64,
    /// Looks that failed.
    pub failures: u64,
}

/// Looks at one address, on a thread of its own, until it is stopped. Times are those at which the answers
/// began to arrive. Dropping it ends it as well.
#[derive(Debug)]
pub struct Scraper {
    stop: oneshot::Sender<()>,
    /// None could be started, for this reason.
    thread: Result<JoinHandle<Scraped>, String>,
}

impl Scraper {
    /// Starts it, and returns once it has had its first look, which is to be over before the requests begin. Blocks the
    /// thread.
    pub fn start(options: Options, clock: Clock) -> Self {
        let patience = options.timeout;
        let (stop, stopped) = oneshot::channel();
        let (looked, first_look) = std_mpsc::channel();
        let shown = options.shown();
        let thread = thread::Builder::new()
            .name("scraper".to_owned())
            .spawn(move || run(&options, clock, looked, stopped))
            .map_err(|error| format!("the metrics at {shown} were not read: {error}"));
        // It may take longer, or have ended.
        let _ = first_look.recv_timeout(patience);
        Self { stop, thread }
    }

    /// Looks a last time, for no longer than a second, and gives what was read. Blocks the thread.
    pub fn stop(self) -> Scraped {
        // It may have ended.
        let _ = self.stop.send(());
        let joined = self.thread.and_then(|thread| {
            thread.join().map_err(|_| "the thread that reads metrics has died".to_owned())
        });
        joined.unwrap_or_else(Scraped::none)
    }
}

impl Scraped {
    /// Nothing, for this reason.
    fn none(reason: String) -> Self {
        Self { absent: Some(reason.clone()), warnings: vec![reason], ..Self::default() }
    }
}

fn run(
    options: &Options,
    clock: Clock,
    looked: std_mpsc::Sender<()>,
    stopped: oneshot::Receiver<()>,
) -> Scraped {
    let failed = |error: anyhow::Error| {
        Scraped::none(format!("the metrics at {} were not read: {error:#}", options.shown()))
    };
    let fetcher = match Fetcher::new(options, clock) {
        Ok(fetcher) => fetcher,
        Err(error) => return failed(error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(error.into()),
    };
    let raw = raw::Raw::new(options.raw.clone());
    let mut collector = Collector::new(options.shown(), raw, options.interval / 2);
    runtime.block_on(look_on(options, clock, &fetcher, &mut collector, looked, stopped));
    // A name that is being resolved would hold up its end.
    runtime.shutdown_background();
    collector.finish()
}

async fn look_on(
    options: &Options,
    clock: Clock,
    fetcher: &Fetcher,
    collector: &mut Collector,
    looked: std_mpsc::Sender<()>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut due = clock.now();
    loop {
        let begun = clock.now();
        let look = tokio::select! {
            _ = &mut stopped => break,
            look = fetcher.page(options.timeout) => look,
        };
        let took = clock.now().saturating_sub(begun);
        collector.took(took);
        let go_on = collector.add(look);
        // Nobody waits after the first.
        let _ = looked.send(());
        if !go_on {
            // The end has no look either.
            let _ = stopped.await;
            return;
        }
        due = next(due, options.interval, clock.now()).max(clock.now() + took * BACK_OFF);
        tokio::select! {
            _ = &mut stopped => break,
            () = clock.wait_until(due) => {}
        }
    }
    collector.add(fetcher.page(options.timeout.min(EDGE)).await);
}

/// The first time after `now` that is a whole number of intervals after `due`.
fn next(due: Duration, interval: Duration, now: Duration) -> Duration {
    let interval = interval.max(Duration::from_millis(1));
    let passed = now.saturating_sub(due).as_nanos() / interval.as_nanos();
    due + interval * u32::try_from(passed + 1).unwrap_or(u32::MAX)
}

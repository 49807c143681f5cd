//! Shows on stderr how a case gets on: a bar on a terminal, plain lines elsewhere. On a thread of its
//! own that only reads counters.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::live::Live;

/// How often a bar is redrawn, and a line is written.
const BAR_PERIOD: Duration = Duration::from_millis(200);
const LINE_PERIOD: Duration = Duration::from_secs(10);
/// Into how many steps a bar is divided.
const BAR_STEPS: u64 = 1000;

/// Where progress goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressStyleKind {
    /// A bar, redrawn in place.
    Bar,
    /// A line now and then.
    Lines,
    /// Nowhere.
    Off,
}

impl ProgressStyleKind {
    /// A bar on a terminal, lines elsewhere, nothing where the user wants none.
    pub fn detect(off: bool) -> Self {
        match (off, io::stderr().is_terminal()) {
            (true, _) => Self::Off,
            (false, true) => Self::Bar,
            (false, false) => Self::Lines,
        }
    }
}

/// Shows progress until it is dropped.
#[derive(Debug)]
pub struct Progress {
    thread: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// Shows the progress of `case`.
    pub fn start(style: ProgressStyleKind, case: &str, live: Arc<Live>) -> Self {
        if style == ProgressStyleKind::Off {
            return Self { thread: None };
        }
        let (stop, stopped) = mpsc::channel();
        let case = case.to_owned();
        let show = move || {
            let bar = (style == ProgressStyleKind::Bar).then(|| bar(&case));
            let period = if bar.is_some() { BAR_PERIOD } else { LINE_PERIOD };
            // Ends when the sender goes.
            while stopped.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
                let Some(snapshot) = live.snapshot() else { continue };
                match &bar {
                    Some(bar) => {
                        let share = snapshot.share().unwrap_or(0.0);
                        bar.set_position((share * BAR_STEPS as f64) as u64);
                        bar.set_message(snapshot.describe());
                    }
                    // Nobody to tell if stderr is closed.
                    None => drop(writeln!(io::stderr(), "{case}: {}", snapshot.describe())),
                }
            }
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
        };
        let thread = std::thread::Builder::new().name("servebench-progress".to_owned());
        // A run without progress is better than none.
        Self { thread: thread.spawn(show).ok().map(|handle| (stop, handle)) }
    }
}

fn bar(case: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(BAR_STEPS), ProgressDrawTarget::stderr());
    let template = "{prefix} [{bar:16}] {wide_msg}";
    let style = ProgressStyle::with_template(template).expect("the template is a constant");
    bar.with_style(style.progress_chars("=> ")).with_prefix(case.to_owned())
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((stop, handle)) = self.thread.take() {
            drop(stop);
            // A panic there has shown itself and says nothing about the measurement.
            let _ = handle.join();
        }
    }
}

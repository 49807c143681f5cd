//! Ctrl-C, SIGTERM and SIGHUP: the first lets the running case save what it has, the second ends the run as soon as
//! no file is being written, the third at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::Exit;
use super::terminal::say;
use crate::launch;
use crate::stop::Stop;

/// How often it is asked whether a file is still being written.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// What an interruption is to reach.
#[derive(Clone, Debug, Default)]
pub(super) struct Interrupt {
    /// Seen by the cases.
    pub(super) stop: Stop,
    /// Whether cases run, so that there is something to save, by those who see `stop`.
    pub(super) busy: Arc<AtomicBool>,
    /// How many parts of the program write what was measured.
    saving: Arc<AtomicUsize>,
}

/// While it lives, what was measured is being written.
#[derive(Debug)]
pub(super) struct Saving(Arc<AtomicUsize>);

impl Drop for Saving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Interrupt {
    /// Listens from now on, on a thread of its own.
    pub(super) fn listen() -> Self {
        let interrupt = Self::default();
        let listener = interrupt.clone();
        let thread = std::thread::Builder::new().name("servebench-signals".to_owned());
        let listen = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let obeyed = runtime.and_then(|runtime| runtime.block_on(listener.obey()));
            if let Err(error) = obeyed {
                say(&format!("warning: Ctrl-C will lose what was measured: {error}"));
            }
        };
        if let Err(error) = thread.spawn(listen) {
            say(&format!("warning: Ctrl-C will lose what was measured: {error}"));
        }
        interrupt
    }

    /// No interruption ends the program while what this returns lives, but the third.
    pub(super) fn saving(&self) -> Saving {
        self.saving.fetch_add(1, Ordering::SeqCst);
        Saving(Arc::clone(&self.saving))
    }

    async fn obey(&self) -> io::Result<()> {
        let mut signals = Signals::listen()?;
        signals.next().await;
        if !self.busy.load(Ordering::SeqCst) {
            leave();
        }
        self.stop.request();
        say("interrupted: saving what was measured; once more to leave at once");
        signals.next().await;
        let written = async {
            while 0 < self.saving.load(Ordering::SeqCst) {
                tokio::time::sleep(ASK_EVERY).await;
            }
        };
        tokio::select! {
            () = written => {}
            () = signals.next() => {}
        }
        leave();
    }
}

/// Ends the process, and the servers that it has started.
fn leave() -> ! {
    launch::kill_all();
    std::process::exit(Exit::Interrupted.code().into());
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    /// `None` where `nohup` has it ignored.
    hang_up: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let ignored = ignores_hang_up();
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: (!ignored).then(|| signal(SignalKind::hangup())).transpose()?,
        })
    }

    /// Returns at the next signal.
    async fn next(&mut self) {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => drop(signal.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = hang_up => {}
        }
    }
}

/// Whether the process was started so that the end of its terminal does not end it.
#[cfg(unix)]
fn ignores_hang_up() -> bool {
    const SIGHUP_BIT: u64 = 1;
    // Other systems do not tell.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & SIGHUP_BIT != 0)
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}

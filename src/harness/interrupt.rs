//! Ctrl-C and SIGTERM: the first lets the running case save what it has, the second ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Exit;
use super::terminal::say;
use crate::launch;
use crate::stop::Stop;

/// What an interruption is to reach.
#[derive(Clone, Debug, Default)]
pub(super) struct Interrupt {
    /// Seen by the case that runs.
    pub(super) stop: Stop,
    /// Whether a case runs, so that there is something to save.
    pub(super) busy: Arc<AtomicBool>,
}

impl Interrupt {
    /// Listens from now on, on a thread of its own.
    pub(super) fn listen() -> Self {
        let interrupt = Self::default();
        let listener = interrupt.clone();
        let thread = std::thread::Builder::new().name("servebench-signals".to_owned());
        let listen = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            if let Ok(runtime) = runtime {
                runtime.block_on(listener.obey());
            }
        };
        if let Err(error) = thread.spawn(listen) {
            say(&format!("warning: Ctrl-C will lose what was measured: {error}"));
        }
        interrupt
    }

    async fn obey(&self) {
        signal().await;
        if !self.busy.load(Ordering::SeqCst) {
            leave();
        }
        say("interrupted: saving what was measured; once more to leave at once");
        self.stop.request();
        signal().await;
        leave();
    }
}

/// Ends the process, and the servers that it has started.
fn leave() -> ! {
    launch::kill_all();
    std::process::exit(Exit::Interrupted.code().into());
}

#[cfg(unix)]
async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        // Without a handler for it, SIGTERM ends the process as it always does.
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

#[cfg(not(unix))]
async fn signal() {
    let _ = tokio::signal::ctrl_c().await;
}

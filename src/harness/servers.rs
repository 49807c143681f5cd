//! The servers that the harness starts: one at a time, shared by the cases in a row that need it.

use std::path::Path;
use std::sync::Mutex;

use super::say;
use crate::launch::{self, Launched};
use crate::lock::lock;
use crate::plan::Backend;
use crate::stop::Stop;

/// The server that was started for the case before, by its backend's name.
#[derive(Debug, Default)]
pub(super) struct Servers(Mutex<Option<(String, Launched)>>);

impl Servers {
    /// Has the server of `backend` running, if the plan says how to start it: the one of the case before
    /// where both share it, and no other.
    pub(super) fn serve(&self, backend: &Backend, logs: &Path, stop: &Stop) -> anyhow::Result<()> {
        let mut launched = lock(&self.0);
        if let Some((name, server)) = launched.as_mut() {
            match server.ended() {
                None if *name == backend.name => return Ok(()),
                None => {}
                Some(status) => {
                    say(&format!("the server of `{name}` has ended by itself ({status})"));
                }
            }
        }
        // Before the next one starts: two would share the machine.
        *launched = None;
        if backend.launch.is_some() {
            say(&format!("starting the server of `{}`", backend.name));
            let server = launch::launch(backend, logs, stop)?;
            *launched = server.map(|server| (backend.name.clone(), server));
        }
        Ok(())
    }

    /// Stops what was started.
    pub(super) fn stop(&self) {
        *lock(&self.0) = None;
    }
}

//! The servers that the harness starts: those of one case at a time, shared by the cases in a row that need
//! them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use super::terminal::say;
use crate::launch::{self, Launched};
use crate::lock::lock;
use crate::plan::Backend;
use crate::stop::Stop;

/// The servers that were started for the case before, by their backends' names.
#[derive(Debug, Default)]
pub(super) struct Servers(Mutex<Vec<(String, Launched)>>);

impl Servers {
    /// Has the servers of `backends` running, where the plan says how to start them: those of the case
    /// before where both share them, and no others.
    pub(super) fn serve(
        &self,
        backends: &[&Backend],
        logs: &Path,
        stop: &Stop,
    ) -> anyhow::Result<()> {
        let mut launched = lock(&self.0);
        let is_wanted = |name: &str| backends.iter().any(|backend| backend.name == name);
        // Before the next one starts: it would share the machine with them.
        launched.retain_mut(|(name, server)| match server.ended() {
            None => is_wanted(name),
            Some(status) => {
                say(&format!("the server of `{name}` has ended by itself ({status})"));
                false
            }
        });
        for backend in backends.iter().filter(|backend| backend.launch.is_some()) {
            if launched.iter().any(|(name, _)| *name == backend.name) {
                continue;
            }
            say(&format!("starting the server of `{}`", backend.name));
            let server = launch::launch(backend, logs, stop)?;
            launched.extend(server.map(|server| (backend.name.clone(), server)));
        }
        Ok(())
    }

    /// The processes that run, by their backends' names.
    pub(super) fn pids(&self) -> BTreeMap<String, u32> {
        lock(&self.0).iter().map(|(name, server)| (name.clone(), server.pid())).collect()
    }

    /// Stops what was started.
    pub(super) fn stop(&self) {
        lock(&self.0).clear();
    }
}

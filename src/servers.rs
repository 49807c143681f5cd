//! The servers that a run starts: those of one case at a time, shared by the cases in a row that need them,
//! and watched until the end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use crate::launch::{self, Launched};
use crate::lock::lock;
use crate::plan::Backend;
use crate::stop::Stop;

/// The servers that run, by their backends' names.
#[derive(Debug)]
pub struct Servers {
    launched: Mutex<Vec<(String, Launched)>>,
    /// What those said last that ended by themselves since it was last asked for.
    ended: Mutex<Vec<String>>,
    logs: PathBuf,
    say: fn(&str),
}

impl Servers {
    /// None yet. Their logs go to `logs`; `say` is told what starts.
    pub fn new(logs: PathBuf, say: fn(&str)) -> Self {
        Self { launched: Mutex::default(), ended: Mutex::default(), logs, say }
    }

    /// Has the servers of `backends` running, where the plan says how to start them: those of the case
    /// before where both share them, and no others.
    pub fn serve(&self, backends: &[&Backend], stop: &Stop) -> anyhow::Result<()> {
        let mut launched = lock(&self.launched);
        let is_wanted = |name: &str| backends.iter().any(|backend| backend.name == name);
        // Before the next one starts: it would share the machine with them.
        launched.retain_mut(|(name, server)| match server.ended() {
            None => is_wanted(name),
            Some(status) => {
                (self.say)(&format!("the server of `{name}` has ended by itself ({status})"));
                false
            }
        });
        for backend in backends.iter().filter(|backend| backend.launch.is_some()) {
            if launched.iter().any(|(name, _)| *name == backend.name) {
                continue;
            }
            (self.say)(&format!("starting the server of `{}`", backend.name));
            let server = launch::launch(backend, &self.logs, stop)?;
            launched.extend(server.map(|server| (backend.name.clone(), server)));
        }
        Ok(())
    }

    /// Starts the server of `backend`, which has a `launch`; it is then the only one that runs.
    pub fn restart(&self, backend: &Backend, stop: &Stop) -> anyhow::Result<()> {
        self.look_for_the_ended();
        self.stop();
        self.serve(&[backend], stop)
    }

    /// The processes that run, by their backends' names.
    pub fn pids(&self) -> BTreeMap<String, u32> {
        lock(&self.launched).iter().map(|(name, server)| (name.clone(), server.pid())).collect()
    }

    /// How servers ended by themselves since this was last asked, each with its last words.
    pub fn take_ended(&self) -> Vec<String> {
        self.look_for_the_ended();
        std::mem::take(&mut lock(&self.ended))
    }

    fn look_for_the_ended(&self) {
        lock(&self.launched).retain_mut(|(name, server)| match server.ended() {
            None => true,
            Some(status) => {
                let words = server.last_words();
                let message = format!("the server of `{name}` ended by itself ({status}); {words}");
                lock(&self.ended).push(message);
                false
            }
        });
    }

    /// Stops what was started.
    pub fn stop(&self) {
        lock(&self.launched).clear();
    }
}

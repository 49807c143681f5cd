//! Where the files that a plan names are: on this machine, or on the Hub, from where they come once.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use crate::clock::Clock;
use crate::hub::{Downloaded, Hub, HubFile, NoSuchFile};
use crate::lock::lock;

/// How often a download says how far it is.
const NEWS_EVERY: Duration = Duration::from_secs(2);
const MIB: f64 = 1024.0 * 1024.0;

/// Finds files, and fetches them where they are on the Hub.
pub struct Files {
    say: Box<dyn Fn(&str) + Send + Sync>,
    only_here: bool,
    hub: OnceLock<Hub>,
    /// What a reader of the numbers should know.
    notes: Mutex<Vec<String>>,
}

impl Files {
    /// Files of this machine and of the Hub; `say` is told how far a download is, a line at a time.
    pub fn new(say: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { say: Box::new(say), only_here: false, hub: OnceLock::new(), notes: Mutex::default() }
    }

    /// Files of this machine alone, those that came from the Hub before included.
    pub fn only_here() -> Self {
        Self { only_here: true, ..Self::new(|_| {}) }
    }

    /// The file at `place`: a path, or a URL such as `hf://datasets/org/name/file.json`.
    pub fn find(&self, place: &str) -> anyhow::Result<PathBuf> {
        if !place.starts_with("hf://") {
            return Ok(PathBuf::from(place));
        }
        self.fetch(&HubFile::parse(place)?)
    }

    /// A file of a model on the Hub.
    pub fn of_model(&self, model: &str, file: &str) -> anyhow::Result<PathBuf> {
        self.fetch(&HubFile::of_model(model, file)?)
    }

    /// Whether an error says that a file is neither here nor may be fetched.
    pub fn is_missing(error: &anyhow::Error) -> bool {
        error.chain().any(|cause| cause.is::<NoSuchFile>())
    }

    /// A file that a model on the Hub may have.
    pub fn of_model_if_any(&self, model: &str, file: &str) -> anyhow::Result<Option<PathBuf>> {
        match self.of_model(model, file) {
            Ok(path) => Ok(Some(path)),
            Err(error) if Self::is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes what there is to know about the files that were found.
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.notes))
    }

    fn fetch(&self, file: &HubFile) -> anyhow::Result<PathBuf> {
        let clock = Clock::start();
        let mut next = Duration::ZERO;
        let mut progress = |downloaded: Downloaded| {
            if next <= clock.now() {
                next = clock.now() + NEWS_EVERY;
                (self.say)(&news(file, downloaded));
            }
        };
        let fetched = self.hub()?.fetch(file, &mut progress)?;
        lock(&self.notes).extend(fetched.note);
        Ok(fetched.path)
    }

    fn hub(&self) -> anyhow::Result<&Hub> {
        if let Some(hub) = self.hub.get() {
            return Ok(hub);
        }
        let hub = Hub::from_env()?;
        let hub = if self.only_here { hub.offline() } else { hub };
        Ok(self.hub.get_or_init(|| hub))
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").field("only_here", &self.only_here).finish_non_exhaustive()
    }
}

fn news(file: &HubFile, Downloaded { bytes, total }: Downloaded) -> String {
    let mib = |bytes: u64| bytes as f64 / MIB;
    match total {
        Some(total) => {
            let share = bytes as f64 / total.max(1) as f64 * 100.0;
            format!("downloading {file}: {:.0} of {:.0} MiB ({share:.0} %)", mib(bytes), mib(total))
        }
        None => format!("downloading {file}: {:.0} MiB", mib(bytes)),
    }
}

/// Whether a place that is no file of this machine can be a model on the Hub.
pub fn is_hub_id(place: &Path) -> bool {
    place.to_str().is_some_and(|id| HubFile::of_model(id, "tokenizer.json").is_ok())
}

//! Keeps two runs on one machine from disturbing each other: each would measure the other's load.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;

use crate::own_file;
use crate::render::text::plain;

/// The most that is read of who holds the lock, bytes.
const LONGEST: u64 = 1000;

/// Held as long as it lives.
#[derive(Debug)]
pub(super) struct MachineLock {
    _file: Option<File>,
}

impl MachineLock {
    /// Waits until no other run measures; `waiting` is called once if there is one.
    pub(super) fn acquire(waiting: impl FnOnce(&str)) -> Self {
        let Ok(mut file) = own_file::open(&own_file::path("servebench", "lock")) else {
            return Self { _file: None };
        };
        let locked = match file.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => {
                waiting(&format!(
                    "waiting for another servebench run on this machine to end{}",
                    holder(&mut file)
                ));
                file.lock().is_ok()
            }
            // A file system without locks.
            Err(TryLockError::Error(_)) => false,
        };
        if locked {
            let _ = tell(&mut file);
        }
        Self { _file: locked.then_some(file) }
    }
}

/// Writes who holds the lock, for those who wait.
fn tell(file: &mut File) -> io::Result<()> {
    let program = std::env::args_os().next().unwrap_or_default();
    let program = Path::new(&program).file_name().unwrap_or_default().to_string_lossy();
    let folder = std::env::current_dir().unwrap_or_default();
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "process {}, {program} in {}", std::process::id(), folder.display())
}

/// Who holds the lock, where that is known.
fn holder(file: &mut File) -> String {
    let mut holder = String::new();
    let read = file.rewind().and_then(|()| file.take(LONGEST).read_to_string(&mut holder));
    if read.is_err() || holder.is_empty() {
        String::new()
    } else {
        format!(" ({})", plain(&holder))
    }
}

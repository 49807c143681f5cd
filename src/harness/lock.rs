//! Keeps two runs on one machine from disturbing each other: each would measure the other's load.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::PathBuf;

/// Held as long as it lives.
#[derive(Debug)]
pub(super) struct MachineLock {
    _file: Option<File>,
}

impl MachineLock {
    /// Waits until no other run measures; `waiting` is called once if there is one.
    pub(super) fn acquire(waiting: impl FnOnce(&str)) -> Self {
        let path = path();
        // Another user's file may only be read, which is enough to lock it.
        let opened = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let Ok(file) = opened.or_else(|_| File::open(&path)) else { return Self { _file: None } };
        let locked = match file.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => {
                waiting("waiting for another servebench run on this machine to end");
                file.lock().is_ok()
            }
            // A file system without locks.
            Err(TryLockError::Error(_)) => false,
        };
        Self { _file: locked.then_some(file) }
    }
}

fn path() -> PathBuf {
    std::env::temp_dir().join("servebench.lock")
}

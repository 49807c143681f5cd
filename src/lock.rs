//! Locks that outlive a panic: what they guard is whole between any two statements, and whoever is going
//! down must still close.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after a thread has panicked.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Lets cases run one after another, in order, however many threads libtest-mimic starts them on. It
//! needs two: with one it prints half a line before a case runs, and any word on stderr splits it.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::lock::lock;

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Turnstile {
    next: Mutex<usize>,
    moved: Condvar,
}

/// The turn of one case; the next one's begins when it is dropped, also by a panic.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a Turnstile);

impl Turnstile {
    /// Waits until all tickets before `ticket` have had their turn.
    pub(super) fn wait(&self, ticket: usize) -> Turn<'_> {
        let next = lock(&self.next);
        let turn = self.moved.wait_while(next, |next| *next != ticket);
        drop(turn.unwrap_or_else(PoisonError::into_inner));
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(&self.0.next) += 1;
        self.0.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_come_in_order_and_never_overlap_even_past_a_panic() {
        let turnstile = Turnstile::default();
        let seen = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for ticket in (0..8).rev() {
                let (turnstile, seen) = (&turnstile, &seen);
                scope.spawn(move || {
                    let result = std::panic::catch_unwind(|| {
                        let _turn = turnstile.wait(ticket);
                        let mut seen = seen.try_lock().expect("nobody else has a turn");
                        seen.push(ticket);
                        drop(seen);
                        assert!(ticket != 3, "a case that panics");
                    });
                    assert_eq!(result.is_err(), ticket == 3);
                });
            }
        });
        assert_eq!(*seen.lock().unwrap(), [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}

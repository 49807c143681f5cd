//! A request to stop, made once and seen by everyone who waits.

use tokio::sync::watch;

/// Whether the run is to stop. Copies share it.
#[derive(Clone, Debug)]
pub struct Stop {
    sender: watch::Sender<bool>,
}

impl Stop {
    /// Nobody has asked yet.
    pub fn new() -> Self {
        Self { sender: watch::Sender::new(false) }
    }

    /// Asks everyone to stop.
    pub fn request(&self) {
        self.sender.send_replace(true);
    }

    /// Whether anyone has asked.
    pub fn is_requested(&self) -> bool {
        *self.sender.borrow()
    }

    /// Returns when someone asks; at once if someone has.
    pub async fn requested(&self) {
        let mut receiver = self.sender.subscribe();
        // The sender lives as long as `self`, so that the wait cannot fail.
        let _ = receiver.wait_for(|requested| *requested).await;
    }
}

impl Default for Stop {
    fn default() -> Self {
        Self::new()
    }
}

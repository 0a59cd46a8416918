//! Places for scrapes that are written at once.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A few places; who comes when all are taken waits, in the order of coming.
pub(super) struct Places {
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// One of them; dropping it gives it back.
pub(super) struct Place {
    places: Arc<Places>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    /// So many.
    pub(super) fn new(count: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), waiting: AtomicUsize::new(0) }
    }

    /// The next that is free.
    pub(super) async fn take(self: Arc<Self>) -> Place {
        let waiting = Waiting::new(&self);
        let permit = Arc::clone(&self.free).acquire_owned().await.expect("the semaphore is never closed");
        drop(waiting);
        Place { places: self, _permit: permit }
    }
}

impl Place {
    /// Whether somebody waits for it.
    pub(super) fn is_wanted(&self) -> bool {
        self.places.waiting.load(Ordering::Relaxed) > 0
    }
}

/// Somebody who waits, until it is dropped: a client may hang up meanwhile.
struct Waiting<'a>(&'a Places);

impl<'a> Waiting<'a> {
    fn new(places: &'a Places) -> Self {
        places.waiting.fetch_add(1, Ordering::Relaxed);
        Self(places)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_place_is_wanted_while_somebody_waits() {
        let places = Arc::new(Places::new(1));
        let place = places.clone().take().await;
        assert!(!place.is_wanted());
        let mut next = Box::pin(places.clone().take());
        assert!(timeout(Duration::from_millis(1), &mut next).await.is_err(), "it is taken");
        assert!(place.is_wanted());
        drop(next);
        assert!(!place.is_wanted(), "who waited has hung up");
        drop(place);
        assert!(!places.take().await.is_wanted());
    }
}

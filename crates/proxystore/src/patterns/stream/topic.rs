//! What a producer gathers for a topic, and whose turn it is to send there.

use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::event::Metadata;
use crate::error::{Error, ErrorKind, Result};

/// So often whoever waits for a topic is asked what else is to be done.
const NUDGE: Duration = Duration::from_millis(20);

/// A topic of a producer. It is held while a batch is sent, so that batches keep their order.
pub(super) struct Topic<T> {
    place: Mutex<Place<T>>,
    returned: Condvar,
}

struct Place<T> {
    /// `None` while somebody holds it.
    pending: Option<Pending<T>>,
    /// How many threads wait for that.
    waiting: usize,
}

/// What is gathered for the next batch of a topic.
pub(super) struct Pending<T> {
    pub(super) objects: Vec<(T, Metadata)>,
    /// Which of them consumers free.
    pub(super) evict: Vec<bool>,
    pub(super) bytes: usize,
    /// When it is old enough.
    pub(super) due: Option<Instant>,
    /// Some thread looks after its age.
    pub(super) is_watched: bool,
    pub(super) closed: bool,
    /// Why a batch could not be sent behind the caller's back.
    pub(super) failure: Option<Error>,
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        let (objects, evict, bytes, due, is_watched, closed, failure) = Default::default();
        Self { objects, evict, bytes, due, is_watched, closed, failure }
    }
}

impl<T> Default for Topic<T> {
    fn default() -> Self {
        let pending = Some(Pending::default());
        Self { place: Mutex::new(Place { pending, waiting: 0 }), returned: Condvar::new() }
    }
}

impl<T> Topic<T> {
    /// What is gathered, once nobody else holds it; `nudge` is called now and then until it is so.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when `deadline` passes first.
    pub(super) fn hold(&self, deadline: Option<Instant>, nudge: impl Fn()) -> Result<Held<'_, T>> {
        let mut place = self.lock();
        loop {
            if let Some(pending) = place.pending.take() {
                return Ok(Held { topic: self, pending });
            }
            let left = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => NUDGE,
            };
            if left.is_zero() {
                let cause = "another thread waits to send to the same topic";
                return Err(Error::new(ErrorKind::Timeout, "send an object", cause).with_hint(
                    "see whether its consumers run and its store answers, or wait longer",
                ));
            }
            nudge();
            place.waiting += 1;
            let waited = self.returned.wait_timeout(place, left.min(NUDGE));
            place = waited.unwrap_or_else(PoisonError::into_inner).0;
            place.waiting -= 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Place<T>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Pending<T> {
    /// Forgets what was sent, and that it could not be sent before.
    pub(super) fn clear(&mut self) {
        self.objects.clear();
        self.evict.clear();
        (self.bytes, self.due, self.failure) = (0, None, None);
    }
}

/// What is gathered for a topic, and the right to send it.
pub(super) struct Held<'a, T> {
    topic: &'a Topic<T>,
    pending: Pending<T>,
}

impl<T> Deref for Held<'_, T> {
    type Target = Pending<T>;

    fn deref(&self) -> &Pending<T> {
        &self.pending
    }
}

impl<T> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut Pending<T> {
        &mut self.pending
    }
}

impl<T> Drop for Held<'_, T> {
    fn drop(&mut self) {
        let mut place = self.topic.lock();
        place.pending = Some(mem::take(&mut self.pending));
        if place.waiting > 0 {
            self.topic.returned.notify_one();
        }
    }
}

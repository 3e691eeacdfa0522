//! What a producer gathers for a topic, and whose turn it is to send there.

use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::event::Metadata;
use crate::condition::Condition;
use crate::error::{Error, ErrorKind, Result};

/// So often whoever waits for a topic is asked what else is to be done.
const NUDGE: Duration = Duration::from_millis(20);

/// Whoever waited for so long is not overtaken any more; until then whoever runs goes on, which is faster.
const PATIENCE: Duration = Duration::from_millis(5);

/// A topic of a producer. It is held while a batch is sent, so that batches keep their order.
pub(super) struct Topic<T> {
    place: Mutex<Place<T>>,
    returned: Condition,
}

struct Place<T> {
    /// `None` while somebody holds it.
    pending: Option<Pending<T>>,
    /// How many threads wait for that, and have waited long.
    impatient: usize,
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
    /// How many ends were sent; with the first, it is closed.
    pub(super) ends: usize,
    /// Why a batch could not be sent behind the caller's back.
    pub(super) failure: Option<Error>,
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        let (objects, evict, bytes, due, is_watched, ends, failure) = Default::default();
        Self { objects, evict, bytes, due, is_watched, ends, failure }
    }
}

impl<T> Default for Topic<T> {
    fn default() -> Self {
        let place = Place { pending: Some(Pending::default()), impatient: 0 };
        Self { place: Mutex::new(place), returned: Condition::default() }
    }
}

impl<T> Topic<T> {
    /// What is gathered, once nobody else holds it; `nudge` is called now and then until it is so.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when `deadline` passes first.
    pub(super) fn hold(&self, deadline: Option<Instant>, nudge: impl Fn()) -> Result<Held<'_, T>> {
        let (mut since, mut is_impatient) = (None, false);
        let mut place = self.lock();
        let outcome = loop {
            if (is_impatient || place.impatient == 0)
                && let Some(pending) = place.pending.take()
            {
                break Ok(Held { topic: self, pending });
            }
            if place.pending.is_some() {
                self.returned.notify_one(); // it is another's turn
            }
            let now = Instant::now();
            let left = deadline.map_or(NUDGE, |deadline| deadline.saturating_duration_since(now));
            if left.is_zero() {
                let cause = "other threads send to the same topic";
                break Err(Error::new(ErrorKind::Timeout, "send an object", cause).with_hint(
                    "see whether its consumers run and its store answers, or wait longer",
                ));
            }
            if !is_impatient && now >= *since.get_or_insert(now) + PATIENCE {
                is_impatient = true;
                place.impatient += 1;
            }
            nudge();
            place = self.returned.wait(place, Some(now + left.min(NUDGE)));
        };
        place.impatient -= usize::from(is_impatient);
        outcome
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
        self.topic.returned.notify_one();
    }
}

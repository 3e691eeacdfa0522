//! A lock that is waited for no longer than until a time.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::condition::Condition;

#[derive(Debug, Default)]
pub(super) struct Gate<T> {
    is_taken: Mutex<bool>,
    left: Condition,
    inside: Mutex<T>,
}

/// Lets its owner at what is inside.
pub(super) struct Pass<'a, T> {
    gate: &'a Gate<T>,
    inside: MutexGuard<'a, T>,
}

impl<T> Gate<T> {
    /// `None` when the time is up before the others have left.
    pub(super) fn enter(&self, until: Option<Instant>) -> Option<Pass<'_, T>> {
        let mut is_taken = lock(&self.is_taken);
        while *is_taken {
            if until.is_some_and(|until| until <= Instant::now()) {
                return None;
            }
            is_taken = self.left.wait(is_taken, until);
        }
        *is_taken = true;
        drop(is_taken);
        Some(Pass { gate: self, inside: lock(&self.inside) })
    }
}

impl<T> Drop for Pass<'_, T> {
    fn drop(&mut self) {
        *lock(&self.gate.is_taken) = false;
        self.gate.left.notify_one();
    }
}

impl<T> Deref for Pass<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inside
    }
}

impl<T> DerefMut for Pass<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inside
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

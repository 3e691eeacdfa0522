//! Waiting for an object whose key was handed out before it exists.

use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::reference::Wait;
use crate::store::Store;

/// A wait in progress; [`step`](Self::step) by step, so that callers can look after other things.
#[derive(Debug)]
pub struct Waiting<'a> {
    store: &'a Store,
    key: &'a Key,
    wait: Wait,
    deadline: Option<Instant>,
    look_at_lease: Option<Instant>,
}

impl<'a> Waiting<'a> {
    /// Starts to wait for the object of `key`, as long as `wait` says.
    pub fn new(store: &'a Store, key: &'a Key, wait: Wait) -> Self {
        let now = Instant::now();
        let deadline = wait.timeout.and_then(|timeout| now.checked_add(timeout));
        let look_at_lease = wait.lease.map(|_| now);
        Self { store, key, wait, deadline, look_at_lease }
    }

    /// Waits until `until` at most; true when the object is there.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when the time is up, [`ErrorKind::Abandoned`] when the lease of the
    /// producer ended, else what the channel fails with.
    pub fn step(&mut self, until: Option<Instant>) -> Result<bool> {
        if let (Some(when), Some(lease)) = (self.look_at_lease, self.wait.lease)
            && when <= Instant::now()
        {
            self.check_lease()?;
            self.look_at_lease = Instant::now().checked_add(lease / 2);
        }
        let ends = [until, self.deadline, self.look_at_lease];
        let connector = self.store.connector();
        if connector.wait(self.key, ends.into_iter().flatten().min())? {
            return Ok(true);
        }
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(self
                .error(ErrorKind::Timeout, "it was not set in time")
                .with_hint("wait longer, or find out why its producer is late"));
        }
        Ok(false)
    }

    fn check_lease(&self) -> Result<()> {
        let connector = self.store.connector();
        // In this order: the record is removed after the object was stored.
        if connector.exists(&lease_record(self.key))? || connector.exists(self.key)? {
            return Ok(());
        }
        Err(self
            .error(ErrorKind::Abandoned, "its producer is gone, and its lease ended")
            .with_hint(
                "the producing process died or was cut off, or another consumer took the result of \
                 an evicting future; run its task again",
            ))
    }

    fn error(&self, kind: ErrorKind, message: &'static str) -> Error {
        Error::new(kind, "wait for the result of a future", message)
            .with("store", self.store.name())
            .with("key", self.key)
    }
}

/// Key of the record that is there as long as a future may still be set.
pub(crate) fn lease_record(key: &Key) -> Key {
    Key::latest(format!("{}.lease", key.id()))
}

impl Store {
    /// Waits for the object of a key as `wait` says; returns when it is there.
    ///
    /// # Errors
    /// As [`Waiting::step`].
    pub fn wait_for_result(&self, key: &Key, wait: Wait) -> Result<()> {
        let mut waiting = Waiting::new(self, key, wait);
        while !waiting.step(None)? {}
        Ok(())
    }
}

impl Wait {
    /// Waits as long as it takes.
    pub fn forever() -> Self {
        Self::default()
    }

    /// Waits `timeout` at most.
    pub fn at_most(timeout: Duration) -> Self {
        Self { timeout: Some(timeout), lease: None }
    }
}

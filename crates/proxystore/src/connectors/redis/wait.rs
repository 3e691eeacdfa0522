//! Waiting for an object: those who fill a key say so on a channel of its name.

use std::time::{Duration, Instant};

use super::layout::key_of;
use super::servers::Call;
use super::{RedisConnector, WAIT};
use crate::connectors::Connector;
use crate::error::{ErrorKind, Result};
use crate::key::Key;

/// How soon a waiter sees that its connector was closed.
const GLANCE: Duration = Duration::from_millis(250);

/// A message can be lost when a cluster changes; even without one the object is looked for.
const AT_LEAST_EVERY: Duration = Duration::from_secs(10);

impl RedisConnector {
    /// Sleeps on a connection that listens, from before the object is looked for.
    pub(super) fn wait_for(&self, key: &Key, deadline: Option<Instant>) -> Result<bool> {
        let left = || deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let is_over = || left().is_some_and(|left| left.is_zero());
        loop {
            self.check(WAIT, key)?;
            if self.exists(key)? {
                return Ok(true);
            }
            if is_over() {
                return Ok(false);
            }
            let mut listened = false;
            let call = Call::of(WAIT, key.id());
            let outcome = self.servers.with_link(call, |link, _| {
                link.subscribed(&key_of(key.id()), |sleep| {
                    loop {
                        match self.check(WAIT, key).and_then(|()| self.exists(key)) {
                            Ok(false) => listened = true,
                            found => return Ok(found),
                        }
                        let look_again = Instant::now() + AT_LEAST_EVERY;
                        loop {
                            if is_over() {
                                return Ok(Ok(false));
                            }
                            if let Err(closed) = self.check(WAIT, key) {
                                return Ok(Err(closed));
                            }
                            let glance = left().unwrap_or(GLANCE).min(GLANCE);
                            if sleep(glance)? || Instant::now() >= look_again {
                                break;
                            }
                        }
                    }
                })
            });
            match outcome {
                Ok(found) => return found,
                // A connection that broke while it listened: start over, however long ago it was.
                Err(error) if error.kind() == ErrorKind::Io && listened => {}
                Err(error) => return Err(error),
            }
        }
    }
}

//! Waiting for an object: the daemon answers when it is there, and is asked again now and then.

use std::thread;
use std::time::{Duration, Instant};

use super::daemons::{Attempt, Call};
use super::link::Link;
use super::{EndpointConnector, WAIT};
use crate::error::{ErrorKind, Result};
use crate::key::Key;
use crate::wire::{Request, milliseconds};

/// How long the daemon is asked to wait at a time.
const AT_A_TIME: Duration = Duration::from_secs(20);

/// How long it may take to look once, however soon the time is up.
const LOOK: Duration = Duration::from_secs(5);

/// How soon a waiter sees that its connector was closed.
const GLANCE: Duration = Duration::from_millis(200);

impl EndpointConnector {
    pub(super) fn wait_for(&self, key: &Key, deadline: Option<Instant>) -> Result<bool> {
        let deadline_of_call = deadline.map(|at| at.max(Instant::now() + LOOK));
        let call = Call { operation: WAIT, deadline: deadline_of_call };
        let mut lost: Option<Instant> = None;
        loop {
            self.check(WAIT, key)?;
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let time = left.unwrap_or(AT_A_TIME).min(AT_A_TIME);
            let outcome = self.daemons.attempt(call, |link| self.wait_once(link, key, time));
            let error = match outcome {
                Ok(Attempt::Answered(Ok(true))) => return Ok(true),
                Ok(Attempt::Answered(Ok(false))) if left.is_some_and(|left| left <= time) => {
                    return Ok(false);
                }
                Ok(Attempt::Answered(Ok(false))) => {
                    lost = None;
                    continue;
                }
                Ok(Attempt::Answered(Err(error))) => return Err(error),
                Ok(Attempt::Broken(error)) | Err(error) => error,
            };
            // Who waits has time: a daemon that is being restarted is waited for as well.
            let since = *lost.get_or_insert_with(Instant::now);
            let is_over = left.is_some_and(|left| left.is_zero());
            if error.kind() != ErrorKind::Io || is_over || since.elapsed() > self.settings.timeout {
                return Err(error);
            }
            thread::sleep(left.unwrap_or(GLANCE).min(GLANCE));
        }
    }

    /// One request, and its answer.
    fn wait_once(&self, link: &mut Link, key: &Key, time: Duration) -> Result<bool> {
        let request = Request::Wait(self.name_of(key.id(), key.generation()), milliseconds(time));
        link.send(&[(request, &[])])?;
        let mut patience = self.daemons.patience(Call::of(WAIT));
        let silent = Instant::now() + time + patience.silence;
        patience.silence = GLANCE;
        link.begin(WAIT, patience);
        while !link.has_more()? && Instant::now() < silent {
            self.check(WAIT, key)?;
        }
        link.begin(WAIT, self.daemons.patience(Call::of(WAIT)));
        Ok(link.stat()?.is_some())
    }
}

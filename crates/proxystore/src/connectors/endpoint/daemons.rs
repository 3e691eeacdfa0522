//! The daemon that is asked, a few idle connections to it, and operations that outlive a broken one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::find::candidates;
use super::link::{Daemon, Link, is_absent};
use super::settings::Settings;
use super::shared::Session;
use super::stream::Patience;
use crate::error::{Error, ErrorKind, Result};
use crate::fork::PerProcess;
use crate::wire::Request;

use std::time::Instant;

/// Idle connections that are kept.
const IDLE: usize = 16;

/// How often an operation is repeated because a connection broke.
const REPEATS: u32 = 2;

/// What an operation is, and until when it may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) operation: &'static str,
    pub(super) deadline: Option<Instant>,
}

impl Call {
    /// A call that may take as long as the daemon lets it.
    pub(super) fn of(operation: &'static str) -> Self {
        Self { operation, deadline: None }
    }
}

/// What became of one attempt.
pub(super) enum Attempt<T> {
    /// There was an answer, if only that it failed.
    Answered(Result<T>),
    /// The connection broke: nobody knows what was done.
    Broken(Error),
}

#[derive(Debug)]
pub(super) struct Daemons {
    settings: Settings,
    /// A forked child must neither use nor close its parent's connections: it starts with none.
    state: PerProcess<State>,
}

#[derive(Debug, Default)]
struct State {
    daemon: Mutex<Option<Arc<Daemon>>>,
    idle: Mutex<Vec<Link>>,
    shared: Mutex<Session>,
}

impl Daemons {
    pub(super) fn new(settings: &Settings) -> Self {
        Self { settings: settings.clone(), state: PerProcess::new(State::default) }
    }

    /// How long a call waits.
    pub(super) fn patience(&self, call: Call) -> Patience {
        Patience { silence: self.settings.timeout, deadline: call.deadline }
    }

    /// The daemon that is asked; finds it first, if none was asked yet.
    pub(super) fn daemon(&self, call: Call) -> Result<Arc<Daemon>> {
        if let Some(daemon) = &*lock(&self.state.get().daemon) {
            return Ok(Arc::clone(daemon));
        }
        let link = self.connect(call)?;
        let daemon = Arc::clone(&link.daemon);
        self.give_back(link);
        Ok(daemon)
    }

    /// The session of shared memory with it.
    pub(super) fn shared(&self) -> MutexGuard<'_, Session> {
        lock(&self.state.get().shared)
    }

    /// Runs `work` with a connection, again where one broke: what is asked must bear being done twice.
    pub(super) fn call<T>(
        &self,
        call: Call,
        mut work: impl FnMut(&mut Link) -> Result<T>,
    ) -> Result<T> {
        let mut repeats = 0;
        loop {
            match self.attempt(call, &mut work)? {
                Attempt::Answered(outcome) => return outcome,
                Attempt::Broken(error) if error.kind() != ErrorKind::Io || repeats == REPEATS => {
                    return Err(error);
                }
                Attempt::Broken(_) => repeats += 1,
            }
        }
    }

    /// Runs `work` once.
    ///
    /// # Errors
    /// When there is no connection to be had.
    pub(super) fn attempt<T>(
        &self,
        call: Call,
        work: impl FnOnce(&mut Link) -> Result<T>,
    ) -> Result<Attempt<T>> {
        let mut link = self.take(call)?;
        let outcome = work(&mut link);
        if link.is_idle() {
            self.give_back(link);
            return Ok(Attempt::Answered(outcome));
        }
        match outcome {
            Err(error) if link.is_broken() => {
                if error.kind() == ErrorKind::Io {
                    self.disconnect(); // the others broke with it, most likely
                }
                Ok(Attempt::Broken(error))
            }
            outcome => Ok(Attempt::Answered(outcome)),
        }
    }

    /// Closes what is idle.
    pub(super) fn disconnect(&self) {
        let links = std::mem::take(&mut *lock(&self.state.get().idle));
        drop(links); // outside the lock
    }

    fn take(&self, call: Call) -> Result<Link> {
        let idle = lock(&self.state.get().idle).pop();
        let mut link = match idle {
            Some(link) => link,
            None => self.connect(call)?,
        };
        link.begin(call.operation, self.patience(call));
        Ok(link)
    }

    fn give_back(&self, link: Link) {
        let mut idle = lock(&self.state.get().idle);
        if idle.len() < IDLE {
            idle.push(link);
        }
    }

    /// A new connection: to the daemon that was asked before, or else to the first that answers.
    fn connect(&self, call: Call) -> Result<Link> {
        let known = lock(&self.state.get().daemon).clone();
        let again = known.map(|known| Link::another(call.operation, &known, self.patience(call)));
        let mut link = match again {
            Some(Ok(link)) => link,
            _ => self.find(call)?,
        };
        self.tell_hints(&mut link)?;
        *lock(&self.state.get().daemon) = Some(Arc::clone(&link.daemon));
        Ok(link)
    }

    fn find(&self, call: Call) -> Result<Link> {
        let mut failure = None;
        for candidate in candidates(&self.settings)? {
            for place in &candidate.places {
                match Link::open(call.operation, &candidate, place, self.patience(call)) {
                    Ok(link) => return Ok(link),
                    // That it is not there says less than what is wrong with one that is.
                    Err(error) if is_absent(&error) => {}
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
            failure = failure.or_else(|| Some(candidate.not_running()));
        }
        let nobody = || Error::new(ErrorKind::Io, call.operation, "there is no endpoint to ask");
        Err(failure.unwrap_or_else(nobody))
    }

    /// Says how the connector's endpoints may be reached. What is wrong with that shows when they are asked.
    fn tell_hints(&self, link: &mut Link) -> Result<()> {
        let own = link.daemon.id;
        let hints = self.settings.hints.iter().filter(|(id, _)| *id != own);
        let requests: Vec<(Request, &[&[u8]])> =
            hints.map(|(id, relay)| (Request::Hint(*id, relay.clone()), &[][..])).collect();
        if requests.is_empty() {
            return Ok(());
        }
        link.send(&requests)?;
        for _ in &requests {
            match link.done() {
                Err(error) if link.is_broken() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Panics cannot leave these half changed, so a poisoned lock is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

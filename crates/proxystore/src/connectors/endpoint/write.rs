//! Storing: bytes go over the connection from where they are, or into shared memory.

use std::time::{Duration, Instant};

use super::daemons::{Attempt, Call};
use super::shared::shared_of;
use super::{AT_ONCE, EndpointConnector, PUT};
use crate::connectors::{Connector, PutOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, check_id, fresh_generation};
use crate::payload::Parts;
use crate::wire::{Name, Request, milliseconds};

/// Generation of objects stored under a key of their own.
const FIRST: u64 = 1;

/// How long a put that failed may take to remove what it left.
const CLEANUP: Duration = Duration::from_secs(1);

/// How long an object is in shared memory that the daemon never hears of, because its client died.
const UNCLAIMED: Duration = Duration::from_mins(1);

impl EndpointConnector {
    pub(super) fn put_one(&self, parts: &Parts<'_>, options: &PutOptions) -> Result<Key> {
        self.check_open(PUT)?;
        let (id, generation) = match &options.key {
            None => (self.new_id()?, FIRST),
            Some(key) => {
                check_id(key.id())?;
                (key.id().to_owned(), fresh_generation()?)
            }
        };
        let call = Call { operation: PUT, deadline: options.deadline };
        self.check_size(call, parts)?;
        let (name, size) = (self.name_of(&id, generation), parts.len() as u64);
        let ttl = options.ttl.map(milliseconds);
        let stored = match self.put_shared(call, &name, ttl, parts) {
            Ok(true) => Ok(()),
            Ok(false) => self.put_bytes(call, &name, ttl, parts),
            Err(error) => Err(error),
        };
        match stored {
            Ok(()) => Ok(Key::new(id, generation, size)),
            Err(error) => {
                self.remove(vec![name]);
                Err(error.with("size", size))
            }
        }
    }

    pub(super) fn put_all(&self, objects: &[Parts<'_>], options: &PutOptions) -> Result<Vec<Key>> {
        self.check_open(PUT)?;
        let call = Call { operation: PUT, deadline: options.deadline };
        if let Some(key) = &options.key {
            check_id(key.id())?;
            return objects.iter().map(|object| self.put_one(object, options)).collect();
        }
        objects.iter().try_for_each(|object| self.check_size(call, object))?;
        let ids = objects.iter().map(|_| self.new_id()).collect::<Result<Vec<_>>>()?;
        let names: Vec<_> = ids.iter().map(|id| self.name_of(id, FIRST)).collect();
        let ttl = options.ttl.map(milliseconds);
        let stored = (|| {
            let mut requests: Vec<(Request, &[&[u8]])> = Vec::with_capacity(AT_ONCE);
            for (object, name) in objects.iter().zip(&names) {
                if !self.put_shared(call, name, ttl, object)? {
                    let put = Request::Put { name: name.clone(), ttl, shared: None };
                    requests.push((put, object.slices()));
                }
            }
            self.all_done(call, &requests)
        })();
        if let Err(error) = stored {
            self.remove(names);
            return Err(error);
        }
        Ok(ids
            .into_iter()
            .zip(objects)
            .map(|(id, o)| Key::new(id, FIRST, o.len() as u64))
            .collect())
    }

    /// Refuses what the daemon would: it need not be sent for that.
    fn check_size(&self, call: Call, parts: &Parts<'_>) -> Result<()> {
        let daemon = self.daemons.daemon(call)?;
        let limit = daemon.welcome.max_object;
        if limit == 0 || parts.len() as u64 <= limit {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Full, PUT, "the endpoint takes no object of this size")
            .with("endpoint", &daemon.welcome.name)
            .with("size", parts.len())
            .with("limit", limit)
            .with_hint("raise `max_object` in section [storage] of its config.toml"))
    }

    fn put_bytes(
        &self,
        call: Call,
        name: &Name,
        ttl: Option<u64>,
        parts: &Parts<'_>,
    ) -> Result<()> {
        let put = Request::Put { name: name.clone(), ttl, shared: None };
        self.all_done(call, &[(put, parts.slices())])
    }

    /// Puts an object into shared memory and hands it to the daemon; false when it has to be sent.
    fn put_shared(
        &self,
        call: Call,
        name: &Name,
        ttl: Option<u64>,
        parts: &Parts<'_>,
    ) -> Result<bool> {
        let daemon = self.daemons.daemon(call)?;
        if name.endpoint != daemon.id || !daemon.shares(parts.len() as u64) {
            return Ok(false);
        }
        let Some(session) = self.daemons.session(call)? else { return Ok(false) };
        // Where shared memory is full, the daemon may have room on its disk.
        let unclaimed = PutOptions { ttl: Some(UNCLAIMED), ..PutOptions::default() };
        let Ok(key) = session.put(parts, &unclaimed) else { return Ok(false) };
        let put = Request::Put { name: name.clone(), ttl, shared: Some(shared_of(&key)) };
        let attempt = self.daemons.attempt(call, |link| {
            link.send(&[(put, &[])])?;
            link.done()
        });
        let outcome = match attempt {
            Ok(Attempt::Answered(Ok(()))) => return Ok(true),
            Ok(Attempt::Answered(Err(error))) => match error.kind() {
                // It does not see what is put there: it lives in a container of its own, for example.
                ErrorKind::NotFound | ErrorKind::Unsupported => {
                    self.daemons.forsake_session();
                    Ok(false)
                }
                _ => Err(error),
            },
            // Nobody knows whether it takes the object over, and with it the memory, which ends by itself if not.
            Ok(Attempt::Broken(_)) => {
                let request = Request::Stat { name: name.clone(), hash: false };
                let found = self.daemons.call(call, |link| {
                    link.send(&[(request.clone(), &[])])?;
                    link.stat()
                });
                return found.map(|found| found.is_some());
            }
            Err(error) => Err(error),
        };
        let _ = session.evict(&key); // or it ends by itself
        outcome
    }

    /// Removes what a put that failed has left; the first error is the one to report.
    fn remove(&self, names: Vec<Name>) {
        let deadline = Some(Instant::now() + CLEANUP);
        let call = Call { operation: PUT, deadline };
        let requests: Vec<(Request, &[&[u8]])> =
            names.into_iter().map(|name| (Request::Evict(name), &[][..])).collect();
        let _ = self.all_done(call, &requests);
    }
}

//! Objects of this endpoint.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use proxystore::wire::{Shared, Stat};
use proxystore::{Error, ErrorKind, Key, Result};
use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::body::Body;

/// The objects of an endpoint, under ids, each of one generation at a time.
#[derive(Debug, Default)]
pub struct Storage {
    objects: Mutex<HashMap<String, Stored>>,
    filled: Notify,
}

#[derive(Debug, Clone)]
struct Stored {
    stat: Stat,
    pieces: VecDeque<Bytes>,
}

/// An object that was found, or a part of it.
#[derive(Debug)]
pub struct Found {
    /// What the object is, as a whole.
    pub stat: Stat,
    /// The bytes that were asked for; empty where they are in shared memory.
    pub body: Body,
    /// Where the whole object is in shared memory, if that was asked for and is so.
    pub shared: Option<Shared>,
}

/// How to get an object; start from `Wanted::default()`.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Which bytes; all where there is none.
    pub range: Option<Range<u64>>,
    /// Whether who asks can read shared memory.
    pub shared: bool,
}

/// How much is stored, and where.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Usage {
    /// How many objects there are.
    pub objects: u64,
    /// Bytes of objects in memory.
    pub memory: u64,
    /// How many bytes that may be.
    pub memory_limit: u64,
    /// Bytes of objects on disk.
    pub disk: u64,
    /// How many bytes that may be.
    pub disk_limit: u64,
    /// Callers that wait for an object.
    pub waiting: u64,
}

impl Storage {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Stored>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a body as a generation of an object, in place of the one before.
    pub async fn put(
        &self,
        id: &str,
        generation: u64,
        ttl: Option<Duration>,
        body: Body,
    ) -> Result<()> {
        let _ = ttl;
        let stat = Stat { generation, size: body.len(), hash: None };
        let pieces = body.collect().await?;
        self.lock().insert(id.to_owned(), Stored { stat, pieces });
        self.filled.notify_waiters();
        Ok(())
    }

    /// Takes over what a client put into shared memory, as [`put`](Self::put) does a body.
    pub async fn put_shared(
        &self,
        id: &str,
        generation: u64,
        ttl: Option<Duration>,
        shared: Key,
    ) -> Result<()> {
        let _ = (id, generation, ttl, shared);
        Err(Error::new(ErrorKind::Unsupported, "put object", "there is no shared memory here"))
    }

    /// An object, or a part of it.
    pub async fn get(&self, id: &str, generation: u64, wanted: &Wanted) -> Result<Option<Found>> {
        let Some(stored) = self.find(id, generation) else { return Ok(None) };
        let range = wanted.range.clone().unwrap_or(0..stored.stat.size);
        if range.start > range.end || range.end > stored.stat.size {
            return Err(Error::new(
                ErrorKind::Config,
                "get part of an object",
                "the range reaches past the end",
            ));
        }
        let mut pieces = VecDeque::new();
        let mut at = 0;
        for piece in &stored.pieces {
            let (start, end) = (at, at + piece.len() as u64);
            let (from, to) = (range.start.clamp(start, end), range.end.clamp(start, end));
            if from < to {
                pieces.push_back(piece.slice((from - start) as usize..(to - start) as usize));
            }
            at = end;
        }
        Ok(Some(Found { stat: stored.stat, body: Body::held(pieces), shared: None }))
    }

    fn find(&self, id: &str, generation: u64) -> Option<Stored> {
        self.lock().get(id).filter(|s| generation == 0 || s.stat.generation == generation).cloned()
    }

    /// What there is to know of an object; with `hash`, its hash too, which may have to be computed.
    pub async fn stat(&self, id: &str, generation: u64, hash: bool) -> Result<Option<Stat>> {
        let _ = hash;
        Ok(self.find(id, generation).map(|stored| stored.stat))
    }

    /// Removes an object, if it is there and of this generation (0 for any).
    pub async fn evict(&self, id: &str, generation: u64) -> Result<()> {
        let mut objects = self.lock();
        if objects.get(id).is_some_and(|s| generation == 0 || s.stat.generation == generation) {
            objects.remove(id);
        }
        Ok(())
    }

    /// Lets an object vanish `ttl` from now, or only when it is evicted.
    pub async fn expire(&self, id: &str, generation: u64, ttl: Option<Duration>) -> Result<()> {
        let _ = (id, generation, ttl);
        Ok(())
    }

    /// Removes all objects whose ids begin so.
    pub async fn clear(&self, prefix: &str) -> Result<()> {
        self.lock().retain(|id, _| !id.starts_with(prefix));
        Ok(())
    }

    /// Waits until an object is there, until `deadline` at the latest.
    pub async fn wait(&self, id: &str, generation: u64, deadline: Instant) -> Result<Option<Stat>> {
        loop {
            let filled = self.filled.notified();
            tokio::pin!(filled);
            filled.as_mut().enable();
            if let Some(stored) = self.find(id, generation) {
                return Ok(Some(stored.stat));
            }
            if tokio::time::timeout_at(deadline, filled).await.is_err() {
                return Ok(None);
            }
        }
    }

    /// How much is stored.
    pub fn usage(&self) -> Usage {
        let objects = self.lock();
        Usage { objects: objects.len() as u64, ..Usage::default() }
    }

    /// Writes what is to outlive the daemon, and lets go of the rest.
    pub async fn close(&self) -> Result<()> {
        self.lock().clear();
        Ok(())
    }
}

//! Objects of this endpoint: in memory within a bound, on disk when that is full, and over restarts on
//! request.
//!
//! - `index`: what there is and where, under the one lock; `recent` and `waiters` are parts of it.
//! - `room`: the bounds. Bytes are charged as they arrive, never by what somebody says will come.
//! - `put` and `get`: the ways in and out; `spill`: from memory to disk, the least recently used first.
//! - `disk` and `format`: files; `shared`: shared memory, which counts as memory.
//! - `expiry` and `time`: when objects end.
//!
//! What takes memory, disk, a file or shared memory gives it back when it is dropped. So a put that fails, or
//! whose caller is gone, leaves nothing behind.

mod disk;
mod expiry;
mod format;
mod get;
mod index;
mod put;
mod recent;
mod room;
mod shared;
mod spill;
mod time;
mod waiters;

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proxystore::wire::{Shared, Stat};
use proxystore::{Error, ErrorKind, Key, Result};
use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use self::disk::{Disk, OnDisk};
use self::index::{Index, Object, entry_bytes};
use self::room::Room;
use self::shared::Session;
use self::time::End;
use crate::body::Body;
use crate::config;

const OPEN: &str = "open the objects of an endpoint";
const PUT: &str = "put object";
const GET: &str = "get object";
const EVICT: &str = "evict object";
const EXPIRE: &str = "let an object expire";
const WAIT: &str = "wait for object";

/// Less memory than this is of no use: what is kept of each object counts too.
const LEAST_MEMORY: u64 = 64 << 10;
/// Memory that is kept for the entries of objects whose bytes have to go to disk, at most.
const MOST_RESERVED: u64 = 1 << 20;
/// As many may wait at once.
const MOST_WAITING: u64 = 1 << 16;

/// The objects of an endpoint, under ids, each of one generation at a time.
#[derive(Debug)]
pub struct Storage(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: config::Storage,
    index: Mutex<Index>,
    memory: Arc<Room>,
    room_on_disk: Arc<Room>,
    disk: Arc<Disk>,
    session: Option<Session>,
    /// Held by who moves objects to disk, one at a time.
    making_room: tokio::sync::Mutex<()>,
    /// Held by who copies an object to shared memory, so that nobody does it twice.
    sharing: tokio::sync::Mutex<()>,
    /// Held by who writes to disk when objects end, so that the last is right.
    rewriting: tokio::sync::Mutex<()>,
    /// An object ends earlier than any before.
    earlier_end: Notify,
    tasks: TaskTracker,
    stop: CancellationToken,
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
    /// Bytes in memory, those of objects and some hundred for each object that there is.
    pub memory: u64,
    /// How many bytes that may be.
    pub memory_limit: u64,
    /// Bytes of objects on disk, and of the heads of their files.
    pub disk: u64,
    /// How many bytes that may be.
    pub disk_limit: u64,
    /// Callers that wait for an object.
    pub waiting: u64,
}

impl Storage {
    /// Opens the storage of an endpoint, whose objects are on disk in `directory` unless its settings say
    /// otherwise. `session` is the name of the session of shared memory that it has with its clients, if any.
    /// Call it within a runtime.
    ///
    /// # Errors
    /// When the directory or the session cannot be had, and for bounds that make no sense.
    pub async fn open(
        settings: &config::Storage,
        directory: &Path,
        session: Option<&str>,
    ) -> Result<Self> {
        if settings.memory < LEAST_MEMORY {
            return Err(Error::new(ErrorKind::Config, OPEN, "there is too little memory")
                .with("memory", settings.memory)
                .with_hint("set `memory` in section [storage] to 64 KiB at least"));
        }
        let directory = if settings.dir.as_os_str().is_empty() { directory } else { &settings.dir };
        let (directory, sync) = (directory.to_owned(), settings.sync);
        let session = session.filter(|_| settings.shared_from > 0).map(str::to_owned);
        let (disk, session, found, last) = blocking(OPEN, move || {
            let (disk, found, last) = Disk::open(&directory, sync)?;
            let session = session.as_deref().map(Session::open).transpose()?;
            Ok((disk, session, found, last))
        })
        .await?;
        let inner = Arc::new(Inner {
            settings: settings.clone(),
            index: Mutex::default(),
            memory: Room::new(settings.memory, (settings.memory / 64).min(MOST_RESERVED)),
            room_on_disk: Room::new(settings.disk, 0),
            disk,
            session,
            making_room: tokio::sync::Mutex::default(),
            sharing: tokio::sync::Mutex::default(),
            rewriting: tokio::sync::Mutex::default(),
            earlier_end: Notify::new(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        let storage = Self(inner);
        storage.0.take_in(found, last);
        storage.0.tasks.spawn(expiry::remove_expired(Arc::clone(&storage.0)));
        Ok(storage)
    }

    /// The name of the session of shared memory, if there is one.
    pub fn session(&self) -> Option<&str> {
        self.0.session.as_ref().map(|session| session.name.as_str())
    }

    /// Stores a body as a generation of an object, in place of the one before.
    ///
    /// # Errors
    /// [`ErrorKind::Full`] when neither memory nor disk has room; what is stored already stays.
    pub async fn put(
        &self,
        id: &str,
        generation: u64,
        ttl: Option<Duration>,
        body: Body,
    ) -> Result<()> {
        self.0.put(id, generation, ttl, body).await
    }

    /// Takes over what a client put into shared memory, as [`put`](Self::put) does a body. It is freed when
    /// that fails.
    pub async fn put_shared(
        &self,
        id: &str,
        generation: u64,
        ttl: Option<Duration>,
        shared: Key,
    ) -> Result<()> {
        self.0.put_shared(id, generation, ttl, shared).await
    }

    /// What a client put into shared memory for another endpoint. It is freed there once nobody reads it.
    pub async fn take_shared(&self, shared: Key) -> Result<Body> {
        self.0.take_shared(shared).await
    }

    /// An object, or a part of it. Who has got it reads on when it is replaced, evicted or expires.
    pub async fn get(&self, id: &str, generation: u64, wanted: &Wanted) -> Result<Option<Found>> {
        self.0.get(id, generation, wanted).await
    }

    /// What there is to know of an object; with `hash`, its hash too, which may have to be computed.
    pub async fn stat(&self, id: &str, generation: u64, hash: bool) -> Result<Option<Stat>> {
        if hash {
            return self.0.hashed(id, generation).await;
        }
        let mut index = self.0.lock();
        index.check_open("look for object")?;
        Ok(index.find(id, generation).map(|object| object.stat))
    }

    /// Removes an object, if it is there and of this generation (0 for any).
    pub async fn evict(&self, id: &str, generation: u64) -> Result<()> {
        let removed = {
            let mut index = self.0.lock();
            index.check_open(EVICT)?;
            index.remove(id, generation)
        };
        self.0.discard(removed, false).await
    }

    /// Lets an object vanish `ttl` from now, or only when it is evicted.
    pub async fn expire(&self, id: &str, generation: u64, ttl: Option<Duration>) -> Result<()> {
        self.0.expire(id, generation, ttl.and_then(End::after)).await
    }

    /// Removes all objects whose ids begin so.
    pub async fn clear(&self, prefix: &str) -> Result<()> {
        let ids = self.0.lock().beginning(prefix);
        // In turns, so that others are not kept waiting.
        for ids in ids.chunks(1024) {
            let removed: Vec<_> = {
                let mut index = self.0.lock();
                index.check_open("evict objects")?;
                ids.iter().filter_map(|id| index.remove(id, 0)).collect()
            };
            self.0.discard(removed, false).await?;
        }
        Ok(())
    }

    /// Waits until an object is there, until `deadline` at the latest.
    ///
    /// # Errors
    /// [`ErrorKind::Full`] when too many wait already, [`ErrorKind::Closed`] when the storage is closed.
    pub async fn wait(&self, id: &str, generation: u64, deadline: Instant) -> Result<Option<Stat>> {
        let mut waiter = None;
        loop {
            let filled = {
                let mut index = self.0.lock();
                index.check_open(WAIT)?;
                if let Some(object) = index.find(id, generation) {
                    return Ok(Some(object.stat));
                }
                if deadline <= Instant::now() {
                    return Ok(None);
                }
                let Waiter { filled, .. } = match &mut waiter {
                    Some(waiter) => waiter,
                    none => none.insert(Waiter::enter(&self.0, &mut index, id)?),
                };
                let mut filled = Box::pin(Arc::clone(filled).notified_owned());
                filled.as_mut().enable();
                filled
            };
            // Once more when the time is up: it may have come at that moment.
            let _ = tokio::time::timeout_at(deadline, filled).await;
        }
    }

    /// How much is stored.
    pub fn usage(&self) -> Usage {
        let inner = &self.0;
        let index = inner.lock();
        Usage {
            objects: index.len() as u64,
            memory: inner.memory.used(),
            memory_limit: inner.memory.limit(),
            disk: inner.room_on_disk.used(),
            disk_limit: inner.room_on_disk.limit(),
            waiting: index.waiters.count(),
        }
    }

    /// Lets go of everything but what is to outlive the daemon, which is on disk already. Every later call
    /// fails, and so do those who wait.
    pub async fn close(&self) -> Result<()> {
        let inner = &self.0;
        inner.stop.cancel();
        let objects = {
            let mut index = inner.lock();
            index.closed = true;
            index.waiters.wake_all();
            index.take_all()
        };
        inner.tasks.close();
        inner.tasks.wait().await;
        let closing = Arc::clone(inner);
        blocking("close the objects of an endpoint", move || {
            // The whole session at once; its objects need not be removed one by one then.
            let closed = closing.session.as_ref().map_or(Ok(()), Session::close);
            objects.iter().for_each(Object::outlive);
            closing.disk.release();
            closed
        })
        .await
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.0.stop.cancel(); // or the task that waits for ends would keep everything
    }
}

impl Drop for Inner {
    /// What persists stays, also when the daemon fails, or is stopped at once.
    fn drop(&mut self) {
        self.lock().take_all().iter().for_each(Object::outlive);
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what an earlier run left on disk, in the order in which it was put there. `last` is the highest
    /// number of a file there.
    fn take_in(&self, found: Vec<disk::Left>, last: u64) {
        let mut replaced = Vec::new();
        let mut index = self.lock();
        index.skip_to(last);
        for disk::Left { number, head } in found {
            // What is there is there, also if the bounds are lower now.
            let charge = self.room_on_disk.insist(head.len() + head.size);
            let entry = self.memory.insist(entry_bytes(&head.id));
            let stat = Stat { generation: head.generation, size: head.size, hash: None };
            let mut object = Object::new(number, stat, End::read(head.ends), entry);
            object.disk = Some(Arc::new(OnDisk::found(&self.disk, number, charge)));
            replaced.extend(index.insert(head.id.into(), object));
        }
        if index.len() > 0 {
            info!(objects = index.len(), "objects of an earlier run are there again");
        }
        drop(index);
        drop(replaced);
    }

    /// Removes the files of objects that were taken out, and all that they take. Unless they are `replaced` by later
    /// ones on disk, they must not be there again after a failure of the system.
    async fn discard(
        &self,
        objects: impl IntoIterator<Item = Object>,
        replaced: bool,
    ) -> Result<()> {
        let slow: Vec<_> = objects.into_iter().filter(Object::takes_time_to_drop).collect();
        if slow.is_empty() {
            return Ok(());
        }
        let directory = Arc::clone(&self.disk);
        blocking(EVICT, move || {
            let (mut first, mut persisted) = (None, false);
            for disk in slow.iter().filter_map(|object| object.disk.as_ref()) {
                persisted |= disk.persists();
                if let Err(error) = disk.remove() {
                    warn!(%error, "the file of an object cannot be removed");
                    first.get_or_insert(error);
                }
            }
            let synced = if persisted && !replaced { directory.sync_directory() } else { Ok(()) };
            first.map_or(synced, Err).map_err(|error| Error::io(EVICT, error))
        })
        .await
    }

    fn admit(&self, size: u64) -> Result<()> {
        let most = self.settings.max_object;
        if most == 0 || size <= most {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Config, PUT, "it is longer than this endpoint takes")
            .with("size", size)
            .with("max_object", most)
            .with_hint("store it in parts, or raise `max_object` in section [storage]"))
    }

    fn full(&self, size: u64) -> Error {
        let of = |room: &Room| format!("{} of {}", room.used(), room.limit());
        Error::new(ErrorKind::Full, PUT, "the endpoint has no room for it")
            .with("size", size)
            .with("memory", of(&self.memory))
            .with("disk", of(&self.room_on_disk))
            .with_hint(
                "evict objects, give them a time to live, or raise `memory` or `disk` in section [storage]",
            )
    }

    fn disk_error(&self, operation: &'static str, error: io::Error) -> Error {
        let directory = self.disk.path().display().to_string();
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Error::new(ErrorKind::Corrupt, operation, "a file was cut short")
                .with("directory", directory)
                .with_source(error)
                .with_hint("something altered the files of the endpoint; store the object again");
        }
        let error = Error::io(operation, error).with("directory", directory);
        if error.kind() != ErrorKind::Full {
            return error;
        }
        error.with_hint(
            "free space there, or set `dir` in section [storage] to a directory with more of it",
        )
    }
}

/// A caller that waits, counted until this is dropped.
struct Waiter<'a> {
    inner: &'a Inner,
    id: Arc<str>,
    filled: Arc<Notify>,
}

impl<'a> Waiter<'a> {
    fn enter(inner: &'a Inner, index: &mut Index, id: &str) -> Result<Self> {
        if index.waiters.count() >= MOST_WAITING {
            return Err(Error::new(ErrorKind::Full, WAIT, "too many wait already")
                .with("waiting", MOST_WAITING)
                .with_hint("try again later"));
        }
        let id: Arc<str> = id.into();
        let filled = index.waiters.enter(&id);
        Ok(Self { inner, id, filled })
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.inner.lock().waiters.leave(&self.id);
    }
}

/// Does what blocks where that is allowed.
async fn blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|source| {
        Error::new(ErrorKind::Io, operation, "a task of the endpoint failed")
            .with_source(source)
            .with_hint("its log says why")
    })?
}

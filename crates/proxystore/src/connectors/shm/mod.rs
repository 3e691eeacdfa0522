//! Shared memory: objects in files on tmpfs, mapped by whoever reads them.
//!
//! Fresh pages are what makes shared memory slow: the kernel zeroes and maps each of them. So the
//! memory of evicted objects is used again. The story, file by file:
//!
//! - `session`: objects belong to a *session*, a directory named by the URL
//!   (`shm://NAME` is `/dev/shm/proxystore-<uid>/NAME`), not to the process that put them. Every
//!   process that uses a session holds its lock, and the last to close it removes it. What killed
//!   processes leave is removed by `sweep`, each time a connector is opened and on request. The
//!   option `persist` keeps a session until it is closed with `clear`.
//! - `segment`: an object of 64 KiB or more lies in a segment, a file that holds one object after
//!   the other, each a *generation*. Evicting flips its state; its owner writes the next object
//!   into pages that are there. The key names segment and generation, so it is found without a
//!   directory. Smaller objects are files of their own, copied out.
//! - `pin`: a reader holds a shared lock that lives as long as its mapping, in forked children
//!   too, and dies with the last of them. The owner recycles only what nobody has locked. Without
//!   this, a recycled segment would show through the pages of a copy-on-write mapping that were
//!   not written yet, and readers would see torn arrays.
//! - `views`: in read-only mode a process reads through mappings it keeps, so that reading a
//!   recycled segment faults no pages. A kept view is no pin.
//! - `pool` and `owner`: which segments are free and how much of that may be kept.
//! - `allocate`: memory in a segment that is filled in place and put without a copy.
//! - `expiry`: objects with a time to live, of which the header has the end; found by whoever sweeps.
//! - `links` and `wait`: keys that are handed out before their object exists.
//!
//! The layout on disk is described in `docs/protocol-shm.md`.

mod allocate;
mod config;
mod expiry;
mod layout;
mod links;
mod owner;
mod pin;
mod pool;
mod read;
mod segment;
mod session;
mod space;
mod sweep;
mod sys;
mod views;
mod wait;

#[cfg(feature = "endpoint")]
pub(super) use self::session::{make_private_directory, user_directory};

#[cfg(feature = "testkit")]
pub(crate) use layout::fuzz;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use once_cell::sync::OnceCell;
use rustix::io::Errno;

pub use self::sweep::{SweepReport, sweep};

/// What the broker of sessions shares with the connector.
pub(crate) use self::{
    config::Settings,
    session::{Session, check_file_system, io},
    sweep::sweep_one,
    sys::{Mapping, PAGE},
};

use self::allocate::Allocations;
use self::layout::Name;
use self::pool::Pool;
use self::read::Found;
use self::views::Views;
use super::expiry::{Expiry, InPassing};
use super::{Capabilities, Connector, ConnectorConfig, GetOptions, PutOptions, closed};
use crate::buffer::Buffer;
use crate::error::{ErrorKind, Result};
use crate::fork::PerProcess;
use crate::key::{Key, check_id};
use crate::payload::Parts;

const PUT: &str = "put object";
const EVICT: &str = "evict object";
const LOOK: &str = "look for object";

/// Objects in shared memory, for all processes of this user on this host.
///
/// ```
/// use proxystore::connectors::shm::ShmConnector;
/// use proxystore::connectors::{Connector, GetOptions, PutOptions};
///
/// let connector = ShmConnector::new(&proxystore::key::unique_id()?)?;
/// let key = connector.put(&b"hello"[..].into(), &PutOptions::default())?;
/// let bytes = connector.get(&key, &GetOptions::default())?;
/// assert_eq!(bytes.as_deref(), Some(&b"hello"[..]));
/// connector.close(true)?;
/// # Ok::<(), proxystore::Error>(())
/// ```
#[derive(Debug)]
pub struct ShmConnector {
    config: ConnectorConfig,
    settings: Settings,
    closed: AtomicBool,
    sweeps: InPassing,
    process: PerProcess<Mutex<Option<Arc<Attached>>>>,
}

/// What one process has of a session. A forked child attaches anew.
#[derive(Debug)]
struct Attached {
    session: Arc<Session>,
    /// Made by the first put: who only reads owns nothing.
    pool: OnceCell<Arc<Pool>>,
    pool_bytes: u64,
    allocations: Allocations,
    views: Views,
}

impl ShmConnector {
    /// Joins the session `name` below `/dev/shm`.
    ///
    /// # Errors
    /// For a name that cannot be one of a file, and when the directory cannot be used.
    pub fn new(name: &str) -> Result<Self> {
        Self::open(&ConnectorConfig::new(format!("shm://{name}")))
    }

    /// Joins the session of a URL `shm://NAME` or `shm://NAME?root=/path`.
    ///
    /// Options: `pool_bytes`, how much freed memory this process keeps for reuse (an eighth of
    /// the file system and at most 2 GiB by default); `persist`, whether the session outlives the
    /// last process that uses it.
    ///
    /// # Errors
    /// For a URL or option that is wrong, and when the directory cannot be used.
    pub fn open(config: &ConnectorConfig) -> Result<Self> {
        let settings = Settings::parse(config)?;
        let connector = Self {
            config: config.clone(),
            settings,
            closed: AtomicBool::new(false),
            sweeps: InPassing::new(),
            process: PerProcess::new(Mutex::default),
        };
        // What cannot be swept today is swept another day; it must not keep anybody from working.
        let _ = sweep(Some(&connector.settings.root));
        connector.attached(PUT)?;
        Ok(connector)
    }

    fn attached(&self, operation: &'static str) -> Result<Arc<Attached>> {
        let mut place = self.process.get().lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at under the lock, or else a call could attach again after `close`.
        if self.closed.load(Ordering::Acquire) {
            return Err(closed(operation, &self.config));
        }
        if let Some(attached) = &*place {
            return Ok(Arc::clone(attached));
        }
        let attached = Arc::new(Attached::open(&self.settings)?);
        *place = Some(Arc::clone(&attached));
        Ok(attached)
    }
}

impl Attached {
    fn open(settings: &Settings) -> Result<Self> {
        let session = Session::open(&settings.root, &settings.name, settings.persist)?;
        session::check_file_system(&settings.root)?;
        let _ = sweep::clear_up(&session); // as above
        let pool_bytes = settings.pool_bytes.unwrap_or_else(|| space::default_pool(&session));
        Ok(Self {
            session: Arc::new(session),
            pool: OnceCell::new(),
            pool_bytes,
            allocations: Allocations::default(),
            views: Views::default(),
        })
    }

    fn pool(&self) -> Result<&Arc<Pool>> {
        self.pool
            .get_or_try_init(|| Pool::new(Arc::clone(&self.session), self.pool_bytes).map(Arc::new))
    }

    /// Tells those who sweep that there will be an object that expires.
    fn expects(&self, operation: &'static str, expiry: Expiry) -> Result<()> {
        if expiry == Expiry::NEVER {
            return Ok(());
        }
        expiry::mark(&self.session).map_err(|errno| io(operation, errno))
    }

    fn store(&self, parts: &Parts<'_>, expiry: Expiry) -> Result<Name> {
        let pool = self.pool()?;
        let (slices, len) = (parts.slices(), parts.len());
        if let Some(name) = self.allocations.publish(pool, slices, len, expiry) {
            return Ok(name);
        }
        space::with_room(pool, PUT, len, || pool.store(slices, len, expiry))
    }

    /// Removes an object wherever it lies; nothing happens when it is not there.
    fn evict(&self, name: Name) -> rustix::io::Result<()> {
        let Name::Segment { owner, number, generation } = name else {
            return match self.session.remove(&name.file()) {
                Err(Errno::NOENT) => Ok(()),
                done => done,
            };
        };
        if let Some(pool) = self.pool.get().filter(|pool| pool.owner.id == owner)
            && pool.evict(number, generation).is_some()
        {
            return Ok(());
        }
        match read::release(&self.session, name)? {
            Some(size) => sweep::was_freed(&self.session, name, size),
            None => Ok(()),
        }
    }

    /// Looks for the object of a key with `find`, which says whether it is under a name.
    fn look<T>(
        &self,
        key: &Key,
        find: impl Fn(Name) -> rustix::io::Result<Option<T>>,
    ) -> Result<Option<T>> {
        check_id(key.id())?;
        let failed = |errno| read::error(key, errno);
        if let Some(name) = own_name(key)
            && let Some(found) = find(name).map_err(failed)?
        {
            return Ok(Some(found));
        }
        if key.generation() == OWN_GENERATION {
            return Ok(None);
        }
        let mut last = None;
        loop {
            let link = links::read(&self.session, key.id()).map_err(failed)?;
            let wanted = |link: &links::Link| {
                matches!(key.generation(), 0) || link.generation == key.generation()
            };
            let Some(link) = link.filter(wanted) else {
                return Ok(None);
            };
            if let Some(found) = find(link.name).map_err(failed)? {
                return Ok(Some(found));
            }
            // Replaced between the two steps; unless it is the same again.
            if last.replace(link) == Some(link) {
                return Ok(None);
            }
        }
    }

    fn find(&self, key: &Key) -> Result<Option<Found>> {
        self.look(key, |name| read::find(&self.session, name))
    }
}

/// The generation in keys of objects that were put without a key; their id says it all.
const OWN_GENERATION: u64 = 1;

/// Where the object of a key lies, if its id says so.
fn own_name(key: &Key) -> Option<Name> {
    Name::parse(key.id()).filter(|_| key.generation() <= OWN_GENERATION)
}

impl Connector for ShmConnector {
    fn put(&self, parts: &Parts<'_>, options: &PutOptions) -> Result<Key> {
        let attached = self.attached(PUT)?;
        let expiry = Expiry::after(options.ttl);
        attached.expects(PUT, expiry)?;
        self.sweeps.now_and_then(|| {
            let _ = expiry::sweep(&attached.session); // what is left is absent anyway
        });
        let size = parts.len() as u64;
        let Some(key) = &options.key else {
            return Ok(Key::new(attached.store(parts, expiry)?.to_string(), OWN_GENERATION, size));
        };
        check_id(key.id())?;
        let name = attached.store(parts, expiry)?;
        let session = &attached.session;
        match links::set(session, key.id(), name) {
            Ok((generation, old)) => {
                // Also when the key is one of an object that was put without a key.
                if let Some(old) = old.map(|link| link.name).or_else(|| Name::parse(key.id())) {
                    attached.evict(old).map_err(|errno| io(EVICT, errno).with("key", key))?;
                }
                Ok(Key::new(key.id(), generation, size))
            }
            Err(errno) => {
                let _ = attached.evict(name); // the first error is the one to report
                Err(space::error(session, PUT, parts.len(), errno).with("key", key))
            }
        }
    }

    fn get(&self, key: &Key, options: &GetOptions) -> Result<Option<Buffer>> {
        let attached = self.attached("get object")?;
        let Some(found) = attached.find(key)? else {
            return Ok(None);
        };
        let (range, access) = (options.range.as_ref(), options.access);
        found.get(key, range, access, &attached.session, &attached.views).map(Some)
    }

    fn exists(&self, key: &Key) -> Result<bool> {
        let attached = self.attached(LOOK)?;
        let there = |name| Ok(read::exists(&attached.session, name)?.then_some(()));
        Ok(attached.look(key, there)?.is_some())
    }

    fn evict(&self, key: &Key) -> Result<()> {
        let attached = self.attached(EVICT)?;
        check_id(key.id())?;
        let failed = |errno| io(EVICT, errno).with("key", key);
        if let Some(name) = own_name(key) {
            attached.evict(name).map_err(failed)?;
        }
        if key.generation() != OWN_GENERATION {
            let link = links::remove(&attached.session, key.id(), key.generation());
            if let Some(link) = link.map_err(failed)? {
                attached.evict(link.name).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn new_key(&self) -> Result<Key> {
        self.attached("make a key")?;
        Key::unique()
    }

    /// With `clear`, removes all objects of the session, whoever put them.
    fn close(&self, clear: bool) -> Result<()> {
        let attached = match self.attached("close") {
            Ok(attached) => attached,
            Err(error) if error.kind() == ErrorKind::Closed => return Ok(()),
            Err(error) => return Err(error),
        };
        let place = self.process.get();
        {
            let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
            self.closed.store(true, Ordering::Release);
            place.take();
        }
        wait::wake(&attached.session);
        if clear {
            sweep::clear(&attached.session).map_err(|errno| {
                io("clear the session", errno).with("channel", &self.config.url)
            })?;
        }
        drop(attached); // gives up this connector's hold on the session
        let _ = sweep::sweep_one(&self.settings.root, &self.settings.name); // or the next start does
        Ok(())
    }

    fn config(&self) -> ConnectorConfig {
        self.config.clone()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            event_driven_wait: true,
            range_reads: true,
            zero_copy_get: true,
            allocate: true,
            deferred_keys: true,
            ttl: true,
            cross_process: true,
            survives_process: true,
        }
    }

    fn wait(&self, key: &Key, deadline: Option<Instant>) -> Result<bool> {
        let attached = self.attached("wait for object")?;
        wait::wait(&attached.session, key.id(), deadline, || self.exists(key))
    }

    fn get_into(&self, key: &Key, range: Option<Range<u64>>, target: &mut [u8]) -> Result<bool> {
        let attached = self.attached("get object")?;
        let Some(found) = attached.find(key)? else {
            return Ok(false);
        };
        found.get_into(key, range.as_ref(), target)?;
        Ok(true)
    }

    fn expire(&self, keys: &[Key], ttl: Option<Duration>) -> Result<()> {
        const EXPIRE: &str = "expire objects";
        let attached = self.attached(EXPIRE)?;
        keys.iter().try_for_each(|key| check_id(key.id()))?;
        let expiry = Expiry::after(ttl);
        attached.expects(EXPIRE, expiry)?;
        for key in keys {
            attached.look(key, |name| read::renew(&attached.session, name, expiry))?;
        }
        Ok(())
    }

    fn allocate(&self, len: usize) -> Result<Buffer> {
        const ALLOCATE: &str = "allocate in shared memory";
        let attached = self.attached(ALLOCATE)?;
        let pool = attached.pool()?;
        space::with_room(pool, ALLOCATE, len, || attached.allocations.allocate(pool, len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_frees_what_expired_now_and_then() {
        let connector = ShmConnector::new(&crate::key::unique_id().unwrap()).unwrap();
        let put = |ttl| {
            let options = PutOptions { ttl, ..PutOptions::default() };
            let key = connector.put(&b"x"[..].into(), &options).unwrap();
            connector.attached(PUT).unwrap().session.path.join(key.id())
        };
        let expired = put(Some(Duration::ZERO));
        put(None);
        assert!(expired.exists(), "too soon to look again");
        connector.sweeps.hurry();
        put(None);
        assert!(!expired.exists());
        connector.close(true).unwrap();
    }
}

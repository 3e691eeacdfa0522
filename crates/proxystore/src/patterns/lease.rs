//! Leases: objects that live as long as somebody renews them.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::fork;
use crate::key::Key;
use crate::patterns::schedule::{self, Scheduled};
use crate::store::Store;

/// However short a lease is, renewing it leaves the process time for other things.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);

/// Keeps objects alive: renews their time to live until it is dropped.
///
/// If the process dies, or is cut off from the channel, the objects vanish when the time to live
/// has passed. Dropping the lease does not evict them; they live on until then. In a forked child a
/// lease does nothing: the parent renews.
///
/// ```
/// # fn main() -> proxystore::Result<()> {
/// use std::time::Duration;
/// use proxystore::{Store, patterns::Lease};
/// let store = Store::open("memory://lease-example")?;
/// let key = store.put("kept")?;
/// let lease = Lease::new(&store, [key.clone()], Duration::from_secs(30))?;
/// assert!(store.exists(&key)?);
/// # store.evict(&key)?;
/// # drop(lease);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Lease {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    ttl: Duration,
    keys: Mutex<Vec<Key>>,
    next: Mutex<Option<Scheduled>>,
    process: u64,
}

impl Lease {
    /// Gives the objects `ttl` to live, and renews it every third of that.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] on channels without a time to live, [`ErrorKind::Config`] for a
    /// `ttl` of zero, else what the channel fails with.
    pub fn new(store: &Store, keys: impl IntoIterator<Item = Key>, ttl: Duration) -> Result<Self> {
        if ttl.is_zero() {
            return Err(Error::new(ErrorKind::Config, "take a lease", "it ends as it begins")
                .with("store", store.name())
                .with_hint("give it a time to live that is longer than renewing it takes"));
        }
        let keys: Vec<Key> = keys.into_iter().collect();
        store.expire(&keys, Some(ttl))?;
        let shared = Arc::new(Shared {
            store: store.clone(),
            ttl,
            keys: Mutex::new(keys),
            next: Mutex::new(None),
            process: fork::generation(),
        });
        renew_after(&shared, ttl / 3)?;
        Ok(Self { shared })
    }

    /// Keeps another object alive too.
    ///
    /// # Errors
    /// What the channel fails with.
    pub fn add(&self, key: Key) -> Result<()> {
        self.shared.store.expire(std::slice::from_ref(&key), Some(self.shared.ttl))?;
        self.shared.keys.lock().unwrap_or_else(PoisonError::into_inner).push(key);
        Ok(())
    }

    /// How long the objects live without renewal.
    pub fn ttl(&self) -> Duration {
        self.shared.ttl
    }
}

fn renew_after(shared: &Arc<Shared>, pause: Duration) -> Result<()> {
    let weak = Arc::downgrade(shared);
    // A lease that outlasts the clock needs no renewal.
    let Some(when) = Instant::now().checked_add(pause.max(SHORTEST_PAUSE)) else {
        return Ok(());
    };
    let job = schedule::at(when, move || renew(&weak))?;
    *shared.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(job);
    Ok(())
}

fn renew(lease: &Weak<Shared>) {
    let Some(shared) = lease.upgrade() else {
        return;
    };
    if shared.process != fork::generation() || shared.store.is_closed() {
        return;
    }
    let keys = shared.keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // A channel that does not answer is asked again well before the time is up.
    let pause = match shared.store.expire(&keys, Some(shared.ttl)) {
        Ok(()) => shared.ttl / 3,
        Err(_) => shared.ttl / 10,
    };
    let _ = renew_after(&shared, pause); // without a thread the objects just expire
}

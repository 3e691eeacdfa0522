//! Lifetimes: scopes that free their objects when they end.
//!
//! - [`ContextLifetime`] ends when it is closed or dropped.
//! - [`LeaseLifetime`] ends at a time, unless it is extended. Channels that have times to live keep
//!   the end themselves, so that a crash leaks nothing.
//! - [`process`] is the lifetime that ends with the process.

mod lease;
mod process;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use lease::LeaseLifetime;
pub use process::{ProcessLifetime, process};

use crate::codec::{Decode, Encode};
use crate::connectors::PutOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::fork::PerProcess;
use crate::key::Key;
use crate::proxy::Proxy;
use crate::reference::Reference;
use crate::store::{Store, StoreFactory};

/// A scope that evicts its objects when it ends. Objects of several stores may be in one.
///
/// A forked child has the parent's lifetimes without their objects: it may add its own.
pub trait Lifetime: Send + Sync {
    /// Adds an object.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] when the lifetime has ended; the object stays as it is.
    fn add_key(&self, store: &Store, key: Key) -> Result<()>;

    /// Ends the lifetime now. Closing again is fine.
    ///
    /// # Errors
    /// The first error that evicting failed with; all objects were tried.
    fn close(&self) -> Result<()>;

    /// Whether it has ended.
    fn is_done(&self) -> bool;

    /// How long it will last, where that is known.
    fn left(&self) -> Option<Duration> {
        None
    }

    /// Adds the object of a proxy's [`reference`](Proxy::reference), whose store is opened if need
    /// be. An object that travels inside its reference needs no lifetime.
    ///
    /// # Errors
    /// As [`add_key`](Self::add_key), and what opening the store fails with.
    fn add_reference(&self, reference: &Reference) -> Result<()> {
        if reference.inline.is_some() {
            return Ok(());
        }
        let store = StoreFactory::from_reference(reference.clone()).store()?;
        self.add_key(&store, reference.key.clone())
    }
}

impl Store {
    /// Stores an object that is evicted when the lifetime ends.
    ///
    /// ```
    /// # fn main() -> proxystore::Result<()> {
    /// use proxystore::{Store, patterns::ContextLifetime};
    /// let store = Store::open("memory://lifetime-example")?;
    /// let key = {
    ///     let lifetime = ContextLifetime::new();
    ///     let key = store.put_in(&lifetime, "temporary")?;
    ///     assert!(store.exists(&key)?);
    ///     key
    /// };
    /// assert!(!store.exists(&key)?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put); [`ErrorKind::Closed`] when the lifetime has ended, also meanwhile.
    /// Nothing is left behind then.
    pub fn put_in<T>(&self, lifetime: &dyn Lifetime, object: &T) -> Result<Key>
    where
        T: Encode + ?Sized,
    {
        let key = self.put_with(object, &self.options_in(lifetime)?)?;
        self.entrust(lifetime, &key)?;
        Ok(key)
    }

    /// As [`put_in`](Self::put_in), and returns a proxy of the object, which already holds it.
    ///
    /// # Errors
    /// As [`put_in`](Self::put_in).
    pub fn proxy_in<T>(&self, lifetime: &dyn Lifetime, object: T) -> Result<Proxy<T>>
    where
        T: Encode + Decode + Send + Sync + 'static,
    {
        let reference = self.refer(&object.encode()?.frame()?, &self.options_in(lifetime)?)?;
        if reference.inline.is_none() {
            self.entrust(lifetime, &reference.key)?;
        }
        Ok(Proxy::with_target(StoreFactory::of(self, reference), Arc::new(object)))
    }

    /// With the end of the lifetime from the start: a crash in between would leave it out.
    fn options_in(&self, lifetime: &dyn Lifetime) -> Result<PutOptions> {
        if lifetime.is_done() {
            return Err(ended());
        }
        let ttl = lifetime.left().filter(|_| self.connector().capabilities().ttl);
        Ok(PutOptions { ttl, ..PutOptions::default() })
    }

    fn entrust(&self, lifetime: &dyn Lifetime, key: &Key) -> Result<()> {
        lifetime.add_key(self, key.clone()).inspect_err(|_| {
            let _ = self.evict(key); // the first error is the one to report
        })
    }
}

/// The error for a lifetime that has ended.
fn ended() -> Error {
    Error::new(ErrorKind::Closed, "add to a lifetime", "the lifetime has ended")
        .with_hint("add objects while it lasts, or make another lifetime")
}

/// A lifetime that ends when it is closed or dropped.
///
/// ```
/// # fn main() -> proxystore::Result<()> {
/// use proxystore::Store;
/// use proxystore::patterns::{ContextLifetime, Lifetime};
/// let store = Store::open("memory://context-example")?;
/// let lifetime = ContextLifetime::new();
/// let proxy = store.proxy_in(&lifetime, vec![1, 2, 3])?;
/// lifetime.close()?;
/// assert!(!store.exists(&proxy.reference()?.key)?);
/// assert_eq!(proxy.len(), 3); // this copy has its target
/// # Ok(()) }
/// ```
pub struct ContextLifetime {
    done: AtomicBool,
    objects: PerProcess<Mutex<Vec<(Store, Key)>>>,
}

impl ContextLifetime {
    /// A lifetime without objects.
    pub const fn new() -> Self {
        Self { done: AtomicBool::new(false), objects: PerProcess::new(Mutex::default) }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Store, Key)>> {
        self.objects.get().lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the objects of each store `ttl` to live, where the channel can.
    fn expire(&self, ttl: Duration) -> Result<()> {
        let mut all: Vec<(Store, Vec<Key>)> = Vec::new();
        for (store, key) in &*self.lock() {
            match all.iter_mut().find(|(known, _)| known.is_same(store)) {
                Some((_, keys)) => keys.push(key.clone()),
                None => all.push((store.clone(), vec![key.clone()])),
            }
        }
        let able = |(store, _): &&(Store, Vec<Key>)| store.connector().capabilities().ttl;
        all.iter().filter(able).try_for_each(|(store, keys)| store.expire(keys, Some(ttl)))
    }
}

impl Lifetime for ContextLifetime {
    fn add_key(&self, store: &Store, key: Key) -> Result<()> {
        let mut objects = self.lock();
        // Looked at under the lock, or else an object could be added after `close` took them.
        if self.is_done() {
            return Err(ended());
        }
        objects.push((store.clone(), key));
        Ok(())
    }

    fn close(&self) -> Result<()> {
        let objects = {
            let mut objects = self.lock();
            self.done.store(true, Ordering::Release);
            std::mem::take(&mut *objects)
        };
        // All of them, whatever becomes of the first.
        let outcomes: Vec<_> = objects.iter().map(|(store, key)| store.evict(key)).collect();
        outcomes.into_iter().collect()
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }
}

impl Default for ContextLifetime {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for ContextLifetime {
    fn drop(&mut self) {
        let _ = self.close(); // nobody is there to be told; `close` tells
    }
}

impl fmt::Debug for ContextLifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let objects = self.lock().len();
        write!(f, "ContextLifetime({objects} objects, done: {})", self.is_done())
    }
}

//! Ownership: one owner frees the object, many shared borrows or one exclusive use it.
//!
//! Within a program the compiler checks the rules: [`RefProxy`] and [`RefMutProxy`] borrow from
//! the [`OwnedProxy`]. What has to leave the scope, for a task in another thread or process, is lent
//! ([`OwnedProxy::lend`]): lent references are counted, and the object is freed when the owner and
//! all of them are gone.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::codec::{Decode, Encode};
use crate::connectors::PutOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::fork;
use crate::key::Key;
use crate::patterns::Lease;
use crate::proxy::Proxy;
use crate::reference::Reference;
use crate::store::{Store, StoreConfig, StoreFactory};

/// The proxy that is responsible for its object: dropping it evicts the object.
///
/// ```
/// # fn main() -> proxystore::Result<()> {
/// use proxystore::Store;
/// let store = Store::open("memory://ownership-example")?;
/// let mut owned = store.owned_proxy(vec![1, 2, 3])?;
/// {
///     let (one, two) = (owned.borrow(), owned.borrow());
///     assert_eq!(one.len() + two.len(), 6);
/// }
/// let mut exclusive = owned.borrow_mut()?;
/// exclusive.push(4);
/// exclusive.update()?; // stores the change
/// assert_eq!(*owned, [1, 2, 3, 4]);
///
/// let key = owned.key().clone();
/// drop(owned);
/// assert!(!store.exists(&key)?);
/// # Ok(()) }
/// ```
///
/// The compiler refuses an exclusive borrow beside another:
///
/// ```compile_fail,E0502
/// # fn main() -> proxystore::Result<()> {
/// # let store = proxystore::Store::open("memory://ownership-example")?;
/// let mut owned = store.owned_proxy(vec![1, 2, 3])?;
/// let shared = owned.borrow();
/// let exclusive = owned.borrow_mut()?;
/// assert_eq!(shared.len(), 3);
/// # Ok(()) }
/// ```
pub struct OwnedProxy<T: 'static> {
    proxy: Proxy<T>,
    guard: Arc<Guard>,
    /// Whether another process made the object, so that this one does not sign it.
    adopted: bool,
}

/// Evicts the object when the owner and all it was lent to are gone.
#[derive(Debug)]
struct Guard {
    store: Store,
    reference: Reference,
    /// A forked child has copies of the parent's owners, and owns nothing.
    process: u64,
    armed: AtomicBool,
    lease: Option<Lease>,
}

impl Guard {
    fn new(store: &Store, reference: Reference, ttl: Option<Duration>) -> Result<Arc<Self>> {
        let lease = match ttl {
            Some(ttl) => Some(Lease::new(store, [reference.key.clone()], ttl)?),
            None => None,
        };
        Ok(Arc::new(Self {
            store: store.clone(),
            reference,
            process: fork::generation(),
            armed: AtomicBool::new(true),
            lease,
        }))
    }

    fn ttl(&self) -> Option<Duration> {
        self.lease.as_ref().map(Lease::ttl)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if *self.armed.get_mut() && self.process == fork::generation() {
            // Nobody is there to be told; an object on a broken channel is beyond reach anyway.
            let _ = self.store.evict(&self.reference.key);
        }
    }
}

impl Store {
    /// Stores an object and returns its owner.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn owned_proxy<T>(&self, object: T) -> Result<OwnedProxy<T>>
    where
        T: Encode + Decode + Send + Sync + 'static,
    {
        self.owned(object, None)
    }

    /// As [`owned_proxy`](Self::owned_proxy), with a lease that the owner renews: if its process
    /// dies, the object goes away when `ttl` has passed.
    ///
    /// # Errors
    /// As [`put`](Self::put); [`ErrorKind::Unsupported`] on channels without a time to live.
    pub fn leased_proxy<T>(&self, object: T, ttl: Duration) -> Result<OwnedProxy<T>>
    where
        T: Encode + Decode + Send + Sync + 'static,
    {
        self.owned(object, Some(ttl))
    }

    fn owned<T>(&self, object: T, ttl: Option<Duration>) -> Result<OwnedProxy<T>>
    where
        T: Encode + Decode + Send + Sync + 'static,
    {
        let key = self.put_with(&object, &PutOptions { ttl, ..PutOptions::default() })?;
        OwnedProxy::new(self, self.config(), &key, Some(Arc::new(object)), false, ttl)
    }
}

impl<T: Decode + Send + Sync + 'static> OwnedProxy<T> {
    fn new(
        store: &Store,
        config: &Arc<StoreConfig>,
        key: &Key,
        target: Option<Arc<T>>,
        adopted: bool,
        ttl: Option<Duration>,
    ) -> Result<Self> {
        // Whichever generation is current: an exclusive borrower elsewhere may have written one.
        let key = key.to_latest();
        let reference = Reference::new(Arc::clone(config), key);
        let made_here = StoreFactory::of(store, reference.clone());
        let factory = if adopted { made_here.made_elsewhere() } else { made_here };
        let proxy = match target {
            Some(target) => Proxy::with_target(factory, target),
            None => Proxy::new(factory),
        };
        Ok(Self { proxy, guard: Guard::new(store, reference, ttl)?, adopted })
    }

    /// Takes responsibility for the object of a reference, such as a task's result on arrival.
    ///
    /// Exactly one process may do so. `ttl` as in [`Store::leased_proxy`]; without it, the object
    /// keeps the time to live that it may have, for instance by the lease of its former owner.
    ///
    /// # Errors
    /// What opening the store fails with.
    pub fn adopt(reference: &Reference, ttl: Option<Duration>) -> Result<Self> {
        let store = StoreFactory::from_reference(reference.clone()).store()?;
        Self::new(&store, &reference.store, &reference.key, None, true, ttl) // its policy stays
    }

    /// Gives the responsibility away: whoever [`adopt`](Self::adopt)s the reference is the owner.
    ///
    /// # Errors
    /// [`ErrorKind::Borrow`] while the object is lent; it is then freed when the last borrower is
    /// gone.
    pub fn into_reference(self) -> Result<Reference> {
        self.check_not_lent("give an owned proxy away")?;
        self.guard.armed.store(false, Ordering::Relaxed);
        self.proxy.reference()
    }

    /// The key of the object, of whichever generation is current.
    pub fn key(&self) -> &Key {
        &self.guard.reference.key
    }

    /// A shared borrow.
    pub fn borrow(&self) -> RefProxy<'_, T> {
        RefProxy { owner: self }
    }

    /// An exclusive borrow of a copy of the object, to change and [`update`](RefMutProxy::update).
    ///
    /// # Errors
    /// [`ErrorKind::Borrow`] while the object is lent, else what resolving fails with.
    pub fn borrow_mut(&mut self) -> Result<RefMutProxy<'_, T>>
    where
        T: Encode + Clone,
    {
        self.check_not_lent("borrow an owned proxy exclusively")?;
        let value = self.proxy.resolve()?.clone();
        Ok(RefMutProxy { owner: self, value })
    }

    /// A counted borrow that may outlive this scope, travel to other threads, and be serialized to
    /// other processes. The object is not freed while it lives.
    pub fn lend(&self) -> LentProxy<T> {
        LentProxy { proxy: self.proxy.clone(), guard: Arc::clone(&self.guard) }
    }

    /// Copies the stored object, and returns the owner of the copy, with a lease like this one's.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no object any more, else what the channel fails with.
    pub fn try_clone(&self) -> Result<Self> {
        let store = &self.guard.store;
        let key = store.copy(self.key())?.ok_or_else(|| store.missing(self.key()))?;
        Self::new(store, store.config(), &key, None, self.adopted, self.guard.ttl())
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.guard.store
    }

    fn check_not_lent(&self, operation: &'static str) -> Result<()> {
        let lent = Arc::strong_count(&self.guard) - 1;
        if lent == 0 {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Borrow, operation, "it is lent out")
            .with("store", self.guard.store.name())
            .with("borrowers", lent)
            .with_hint("drop the lent proxies first, for instance when their tasks are done"))
    }
}

impl<T: 'static> Deref for OwnedProxy<T> {
    type Target = T;

    /// # Panics
    /// As dereferencing a [`Proxy`].
    fn deref(&self) -> &T {
        &self.proxy
    }
}

impl<T: 'static> fmt::Debug for OwnedProxy<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Owned{:?}", self.proxy)
    }
}

/// A shared borrow of an [`OwnedProxy`], which outlives it.
pub struct RefProxy<'a, T: 'static> {
    owner: &'a OwnedProxy<T>,
}

impl<T: 'static> Clone for RefProxy<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: 'static> Copy for RefProxy<'_, T> {}

impl<T: 'static> Deref for RefProxy<'_, T> {
    type Target = Proxy<T>;

    fn deref(&self) -> &Proxy<T> {
        &self.owner.proxy
    }
}

impl<T: 'static> fmt::Debug for RefProxy<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ref{:?}", self.owner.proxy)
    }
}

/// An exclusive borrow of an [`OwnedProxy`]: a copy of the object to change.
pub struct RefMutProxy<'a, T: 'static> {
    owner: &'a mut OwnedProxy<T>,
    value: T,
}

impl<T: Encode + Decode + Send + Sync + 'static> RefMutProxy<'_, T> {
    /// Stores the changed object in place of the owner's; without this, changes are discarded.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn update(self) -> Result<()> {
        let guard = &self.owner.guard;
        let key = Some(guard.reference.key.clone());
        let options = PutOptions { key, ttl: guard.ttl(), ..PutOptions::default() };
        guard.store.put_with(&self.value, &options)?;
        let factory = StoreFactory::of(&guard.store, guard.reference.clone());
        self.owner.proxy = Proxy::with_target(factory, Arc::new(self.value));
        Ok(())
    }
}

impl<T: 'static> Deref for RefMutProxy<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: 'static> DerefMut for RefMutProxy<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: 'static> fmt::Debug for RefMutProxy<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RefMut{:?}", self.owner.proxy)
    }
}

/// A counted borrow: keeps the object alive until it is dropped.
///
/// Serialized, it is an ordinary reference; keep this end until the receiver is done.
pub struct LentProxy<T: 'static> {
    proxy: Proxy<T>,
    guard: Arc<Guard>,
}

impl<T: 'static> Clone for LentProxy<T> {
    fn clone(&self) -> Self {
        Self { proxy: self.proxy.clone(), guard: Arc::clone(&self.guard) }
    }
}

impl<T: 'static> Deref for LentProxy<T> {
    type Target = Proxy<T>;

    fn deref(&self) -> &Proxy<T> {
        &self.proxy
    }
}

impl<T: 'static> Serialize for LentProxy<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.proxy.serialize(to)
    }
}

impl<T: 'static> fmt::Debug for LentProxy<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lent{:?}", self.proxy)
    }
}

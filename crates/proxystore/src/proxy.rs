//! The transparent proxy: stands for a target and fetches it on first use, once.
//!
//! This module knows only factories; stores come in through [`Factory`].

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use once_cell::sync::OnceCell;

use crate::error::{Error, ErrorKind, Result};
use crate::facts::Facts;
use crate::reference::Reference;
use crate::store::StoreFactory;
use crate::view::View;

/// Produces the target of a proxy.
///
/// Every `Fn() -> Result<T>` is one; proxies made from closures cannot travel to other processes.
pub trait Factory<T>: Send + Sync + 'static {
    /// Produces the target. Called again only if an earlier call failed.
    fn resolve(&self) -> Result<Arc<T>>;

    /// The reference from which an equal factory can be made anywhere.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for a factory that exists in this process alone.
    fn reference(&self) -> Result<Reference> {
        Err(Error::new(ErrorKind::Unsupported, "send a proxy", "its factory is a local function")
            .with_hint("make the proxy with Store::proxy, whose reference can travel"))
    }

    /// What is known of the target without producing it.
    fn facts(&self) -> Facts {
        self.reference().map(|reference| reference.facts).unwrap_or_default()
    }

    /// A view of the stored object.
    ///
    /// # Errors
    /// As [`StoreFactory::view`]; [`ErrorKind::Unsupported`] for a factory without reference.
    fn view(&self) -> Result<View> {
        StoreFactory::from_reference(self.reference()?).view()
    }
}

impl<T, F: Fn() -> Result<T> + Send + Sync + 'static> Factory<T> for F {
    fn resolve(&self) -> Result<Arc<T>> {
        self().map(Arc::new)
    }
}

/// Lazy stand-in for a `T`: dereferences to it, fetching it on first use.
///
/// Clones share the factory and the target. Serializing a proxy (with any serde format) carries
/// the reference alone, never the target.
///
/// ```
/// # fn main() -> proxystore::Result<()> {
/// use proxystore::{Proxy, Store};
/// let store = Store::open("memory://proxy-example")?;
/// let proxy = store.proxy(vec![1.0, 2.0, 3.0])?;
///
/// let sent = rmp_serde::to_vec(&proxy).expect("a reference");
/// assert!(sent.len() < 250);
///
/// let received: Proxy<Vec<f64>> = rmp_serde::from_slice(&sent).expect("a reference");
/// assert!(!received.is_resolved());
/// assert_eq!(received.iter().sum::<f64>(), 6.0); // fetched here
/// assert!(received.is_resolved());
/// # Ok(()) }
/// ```
pub struct Proxy<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    factory: Box<dyn Factory<T>>,
    target: OnceCell<Arc<T>>,
}

impl<T: 'static> Proxy<T> {
    /// A proxy of what the factory will produce.
    pub fn new(factory: impl Factory<T>) -> Self {
        Self { shared: Arc::new(Shared { factory: Box::new(factory), target: OnceCell::new() }) }
    }

    /// A proxy that already holds its target; the factory serves the receivers of copies.
    pub fn with_target(factory: impl Factory<T>, target: Arc<T>) -> Self {
        let target = OnceCell::with_value(target);
        Self { shared: Arc::new(Shared { factory: Box::new(factory), target }) }
    }

    /// The target, fetched if need be. Threads that ask at the same time wait for one fetch.
    ///
    /// A factory must not use the proxy it resolves.
    ///
    /// # Errors
    /// What the factory fails with; the next call tries again.
    pub fn resolve(&self) -> Result<&T> {
        self.shared.resolve().map(|target| &**target)
    }

    /// The target if it was fetched already.
    pub fn try_get(&self) -> Option<&T> {
        self.shared.target.get().map(|target| &**target)
    }

    /// Whether the target was fetched already.
    pub fn is_resolved(&self) -> bool {
        self.shared.target.get().is_some()
    }

    /// The target itself, shared with the store's cache and other proxies of the object.
    ///
    /// # Errors
    /// What the factory fails with.
    pub fn into_shared(self) -> Result<Arc<T>> {
        self.shared.resolve().cloned()
    }

    /// The target itself, cloned only if somebody else holds it too.
    ///
    /// # Errors
    /// What the factory fails with.
    pub fn into_inner(self) -> Result<T>
    where
        T: Clone,
    {
        let target = self.shared.resolve().cloned()?;
        drop(self); // gives up this proxy's own share
        Ok(Arc::unwrap_or_clone(target))
    }

    /// Starts fetching the target in the background; whoever uses the proxy meanwhile waits for
    /// that fetch. A failure is reported to the first user, by trying again.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when no thread can be started.
    pub fn resolve_async(&self) -> Result<()>
    where
        T: Send + Sync + 'static,
    {
        if self.is_resolved() {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        std::thread::Builder::new()
            .name("proxystore-resolve".to_owned())
            .spawn(move || drop(shared.resolve().map(drop)))
            .map(drop)
            .map_err(|source| Error::io("resolve in the background", source))
    }

    /// What is known of the target without fetching it; nothing when the factory exists in this
    /// process alone. Facts stay what they were when the object was stored.
    pub fn facts(&self) -> Facts {
        self.shared.factory.facts()
    }

    pub(crate) fn factory(&self) -> &dyn Factory<T> {
        &*self.shared.factory
    }

    /// The reference by which the proxy travels.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when the factory exists in this process alone.
    pub fn reference(&self) -> Result<Reference> {
        self.shared.factory.reference()
    }
}

impl<T: 'static> Shared<T> {
    fn resolve(&self) -> Result<&Arc<T>> {
        self.target.get_or_try_init(|| self.factory.resolve())
    }
}

impl<T> Clone for Proxy<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T: 'static> Deref for Proxy<T> {
    type Target = T;

    /// The target, fetched if need be.
    ///
    /// # Panics
    /// When the target cannot be fetched: dereferencing has no other way to say so. Call
    /// [`Proxy::resolve`] first where that may happen.
    fn deref(&self) -> &T {
        match self.resolve() {
            Ok(target) => target,
            Err(error) => panic!("{error}; call `resolve` first to handle this error"),
        }
    }
}

impl<T: 'static> fmt::Debug for Proxy<T> {
    /// Never fetches the target.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.is_resolved() { "resolved" } else { "unresolved" };
        write!(f, "Proxy<{}>({state})", std::any::type_name::<T>())
    }
}

/// A proxy that cannot be used by accident: it has to be unlocked first.
///
/// ```
/// # fn main() -> proxystore::Result<()> {
/// use proxystore::Store;
/// let store = Store::open("memory://locked-example")?;
/// let locked = store.locked_proxy("large".to_owned())?;
/// assert_eq!(*locked.unlock(), "large");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Locked<T: 'static>(Proxy<T>);

impl<T: 'static> Locked<T> {
    /// Locks a proxy.
    pub fn new(proxy: Proxy<T>) -> Self {
        Self(proxy)
    }

    /// The proxy, ready for use.
    pub fn unlock(self) -> Proxy<T> {
        self.0
    }
}

//! Distributed futures: a proxy now, its object later, perhaps from elsewhere.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use crate::codec::{Decode, Encode, FAILURE, Failure};
use crate::connectors::{Access, PutOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::patterns::Lease;
use crate::payload::{Framed, Parts};
use crate::proxy::{Factory, Proxy};
use crate::reference::{Reference, Wait};
use crate::store::{Store, StoreFactory, lease_record};

/// The end of a future that sets it; [`proxy`](Self::proxy) makes the ends that wait.
///
/// Whoever uses a proxy before the object is there waits for it, event driven where the channel
/// allows. Both ends travel: serialize the future to the producer, the proxies to the consumers, in
/// any order.
///
/// ```
/// # fn main() -> proxystore::Result<()> {
/// use proxystore::{Proxy, Store, patterns::Future};
/// let store = Store::open("memory://future-example")?;
/// let future: Future<String> = store.future()?;
/// let proxy: Proxy<String> = future.proxy();
/// let consumer = std::thread::spawn(move || proxy.len()); // waits
/// future.set_result(&"hello".to_owned())?;
/// assert_eq!(consumer.join().unwrap(), 5);
/// # Ok(()) }
/// ```
pub struct Future<T> {
    factory: StoreFactory,
    reference: Reference,
    /// Renews the record that says that somebody may still set the future.
    lease: Option<Lease>,
    result: PhantomData<fn() -> T>,
}

/// How a future is made; start from `FutureOptions::default()`.
#[derive(Debug, Clone, Copy, Default)]
pub struct FutureOptions {
    /// The object is evicted when it is first resolved.
    pub evict: bool,
    /// Proxies wait this long at most, and then fail with an error of kind `Timeout`.
    pub timeout: Option<Duration>,
    /// Consumers stop waiting, with an error of kind `Abandoned`, when no process has held the
    /// future for this long: its producer died. Needs a channel with a time to live.
    pub lease: Option<Duration>,
}

impl Store {
    /// A key now, its object later.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] on channels without deferred keys.
    pub fn future<T: 'static>(&self) -> Result<Future<T>> {
        self.future_with(&FutureOptions::default())
    }

    /// As [`future`](Self::future), with options.
    ///
    /// # Errors
    /// As [`future`](Self::future); a lease needs a channel with a time to live.
    pub fn future_with<T: 'static>(&self, options: &FutureOptions) -> Result<Future<T>> {
        let key = self.new_key()?;
        let mut reference = Reference::new(Arc::clone(self.config()), key);
        reference.evict = options.evict;
        reference.wait = Some(Wait { timeout: options.timeout, lease: options.lease });
        Future::new(StoreFactory::of(self, reference.clone()), reference)
    }

    /// Says that the future of this key may still be set, until the lease is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] on channels without a time to live.
    pub fn hold_future(&self, key: &Key, ttl: Duration) -> Result<Lease> {
        let record = lease_record(key);
        let options =
            PutOptions { key: Some(record.clone()), ttl: Some(ttl), ..PutOptions::default() };
        // Not by the store: nobody reads it, so it is not sealed.
        self.connector().put(&Parts::from(&b"lease"[..]), &options)?;
        Lease::new(self, [record], ttl)
    }

    /// The failure stored under a key; `None` for an object, or for nothing. Reads no more of an
    /// object than its first bytes, where the channel reads ranges. Sites where objects may not be
    /// read see failures too, since they may set futures.
    ///
    /// # Errors
    /// What the channel fails with.
    pub fn failure(&self, key: &Key) -> Result<Option<Failure>> {
        match self.look_into(key) {
            Ok(Some(reader)) if reader.head().codec() == FAILURE => {}
            Err(error) if !matches!(error.kind(), ErrorKind::Config | ErrorKind::Corrupt) => {
                return Err(error);
            }
            _ => return Ok(None), // nothing, or bytes that are no payload
        }
        let received = self.fetch(key, Access::ReadOnly)?;
        Ok(received.as_ref().map(Failure::of).transpose()?.flatten())
    }

    /// Stores the result of a future, or its failure, and drops the record of its lease.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn settle<T: Encode + ?Sized>(&self, reference: &Reference, object: &T) -> Result<()> {
        self.settle_framed(reference, &object.encode()?.frame()?)
    }

    /// As [`settle`](Self::settle), with a framed payload.
    ///
    /// # Errors
    /// As [`settle`](Self::settle).
    pub fn settle_framed(&self, reference: &Reference, framed: &Framed<'_>) -> Result<()> {
        let options = PutOptions { key: Some(reference.key.clone()), ..PutOptions::default() };
        self.put_framed(framed, &options)?;
        self.cache().remove(&reference.key); // keys of some connectors have no generations
        if reference.wait.is_some_and(|wait| wait.lease.is_some()) {
            self.evict(&lease_record(&reference.key))?;
        }
        Ok(())
    }
}

impl<T: 'static> Future<T> {
    fn new(factory: StoreFactory, reference: Reference) -> Result<Self> {
        let lease = match reference.wait.and_then(|wait| wait.lease) {
            Some(ttl) => Some(factory.store()?.hold_future(&reference.key, ttl)?),
            None => None,
        };
        Ok(Self { factory, reference, lease, result: PhantomData })
    }

    /// The future of a reference that another process made: of the future, or of one of its proxies.
    ///
    /// # Errors
    /// What opening the store fails with, if the future has a lease.
    pub fn from_reference(reference: Reference) -> Result<Self> {
        Self::new(StoreFactory::from_reference(reference.clone()), reference)
    }

    /// The reference by which the future and its proxies travel.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// A proxy that waits for the result when it is used.
    pub fn proxy(&self) -> Proxy<T>
    where
        T: Decode + Send + Sync,
    {
        Proxy::new(self.factory.with_reference(self.reference.clone()))
    }

    /// Sets the result and wakes who waits. Setting it again replaces it for later readers.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn set_result(&self, result: &T) -> Result<()>
    where
        T: Encode,
    {
        self.settle(result)
    }

    /// Sets a failure instead of a result: who waits gets an error of kind `Failed`.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub fn set_error(&self, error: &(impl std::error::Error + ?Sized)) -> Result<()> {
        let name = std::any::type_name_of_val(error);
        self.settle(&Failure::new(name, error.to_string()))
    }

    /// Cancels the future unless it is set: who waits gets an error of kind `Cancelled`. Returns
    /// whether it is cancelled now.
    ///
    /// # Errors
    /// What the channel fails with.
    pub fn cancel(&self) -> Result<bool> {
        if self.is_done()? {
            return self.is_cancelled();
        }
        self.settle(&Failure::cancelled())?;
        Ok(true)
    }

    /// Whether it was cancelled.
    ///
    /// # Errors
    /// What the channel fails with.
    pub fn is_cancelled(&self) -> Result<bool> {
        let failure = self.factory.store()?.failure(&self.reference.key)?;
        Ok(failure.is_some_and(|failure| failure.cancelled))
    }

    /// Whether there is a result or a failure now; false again once it was evicted.
    ///
    /// # Errors
    /// What the channel fails with.
    pub fn is_done(&self) -> Result<bool> {
        self.factory.store()?.exists(&self.reference.key)
    }

    /// Waits for the result; `timeout` instead of the future's own, if given.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`], [`ErrorKind::Failed`], [`ErrorKind::Cancelled`],
    /// [`ErrorKind::Abandoned`], else as [`Store::get`].
    pub fn result(&self, timeout: Option<Duration>) -> Result<Arc<T>>
    where
        T: Decode + Send + Sync,
    {
        let mut reference = self.reference.clone();
        if let (Some(wait), Some(timeout)) = (&mut reference.wait, timeout) {
            wait.timeout = Some(timeout);
        }
        self.factory.derived(reference)?.resolve()
    }

    /// Whether consumers notice the death of this future's producer.
    pub fn has_lease(&self) -> bool {
        self.lease.is_some()
    }

    fn settle(&self, object: &(impl Encode + ?Sized)) -> Result<()> {
        let store = self.factory.store()?;
        // Cancelling is final; a result may be replaced.
        if self.is_cancelled()? {
            return Err(Error::new(ErrorKind::Cancelled, "set a future", "it was cancelled")
                .with("store", store.name())
                .with("key", &self.reference.key)
                .with_hint("cancelling is final: make another future for another result"));
        }
        store.settle(&self.reference, object)
    }
}

impl<T> fmt::Debug for Future<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (store, key) = (&self.reference.store.name, &self.reference.key);
        write!(f, "Future<{}>(store={store}, key={key})", std::any::type_name::<T>())
    }
}

impl<T> Serialize for Future<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.factory.sent(self.reference.clone()).map_err(ser::Error::custom)?.serialize(to)
    }
}

impl<'de, T: 'static> Deserialize<'de> for Future<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::from_reference(Reference::deserialize(from)?).map_err(de::Error::custom)
    }
}

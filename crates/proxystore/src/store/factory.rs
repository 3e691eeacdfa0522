//! The factory that fetches a target from a store, and the proxies that travel by it.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser};

use crate::buffer::Buffer;
use crate::codec::Decode;
use crate::error::Result;
use crate::key::Key;
use crate::payload::Received;
use crate::proxy::{Factory, Proxy};
use crate::reference::Reference;
use crate::store::{Store, registry};
use crate::trust;
use crate::view::View;

/// Fetches an object from a store, which it finds or opens by its reference.
#[derive(Debug)]
pub struct StoreFactory {
    reference: Reference,
    /// The store at hand, if the factory was made by it in this process.
    store: Option<Store>,
    /// Whether the reference was sent here, so that who made it may matter.
    received: bool,
    /// Whether this process vouches for the object, so that it signs what it sends of it.
    signs: bool,
}

impl StoreFactory {
    /// A factory for an object of a store at hand.
    pub fn new(store: &Store, key: Key) -> Self {
        Self::of(store, Reference::new(Arc::clone(store.config()), key))
    }

    /// A factory for what a reference that this process made names, to a store at hand.
    pub fn of(store: &Store, reference: Reference) -> Self {
        Self { reference, store: Some(store.clone()), received: false, signs: true }
    }

    /// A factory for what a reference that was sent names.
    pub fn from_reference(reference: Reference) -> Self {
        Self { reference, store: None, received: true, signs: false }
    }

    /// The same for a changed reference to the same object.
    pub(crate) fn with_reference(&self, reference: Reference) -> Self {
        Self { reference, store: self.store.clone(), ..*self }
    }

    /// A factory for a reference that this process derives from the present one, which is checked:
    /// who made that one has not signed the other.
    pub(crate) fn derived(&self, reference: Reference) -> Result<Self> {
        if self.received {
            trust::producers::check(&self.reference)?;
        }
        Ok(Self { reference, store: self.store.clone(), received: false, signs: false })
    }

    /// The same for an object that another process made.
    #[must_use]
    pub(crate) fn made_elsewhere(self) -> Self {
        Self { signs: false, ..self }
    }

    /// The object, as `resolve` gets it, but neither kept in the cache nor freed.
    pub(crate) fn fetch_once<T: Decode + Send + Sync + 'static>(&self) -> Result<Arc<T>> {
        if let Some(received) = self.permitted()? {
            return T::decode(&received).map(Arc::new);
        }
        let (store, key) = (self.store()?, &self.reference.key);
        let received = store.get_payload(key, T::ACCESS)?.ok_or_else(|| store.missing(key))?;
        T::decode(&received).map(Arc::new)
    }

    /// A reference to the object as it is sent: signed, if it was made here.
    pub(crate) fn sent(&self, mut reference: Reference) -> Result<Reference> {
        if let Some(store) = self.store.as_ref().filter(|_| self.signs) {
            store.sign(&mut reference)?;
        }
        Ok(reference)
    }

    /// Evicts the object when it is resolved.
    #[must_use]
    pub fn evicting(mut self) -> Self {
        self.reference.evict = true;
        self
    }

    /// What names the object.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The store, opened if need be.
    ///
    /// # Errors
    /// What opening it fails with; [`ErrorKind::Untrusted`](crate::ErrorKind::Untrusted) for a
    /// reference of a producer whom this process does not [know](crate::trust::require_producers).
    pub fn store(&self) -> Result<Store> {
        if self.received {
            trust::producers::check(&self.reference)?;
        }
        match &self.store {
            Some(store) if !store.is_closed() => Ok(store.clone()),
            _ => registry::of_reference(&self.reference),
        }
    }

    /// Checks that this process may read the object, and returns it if it travelled inside the
    /// reference.
    pub(crate) fn permitted(&self) -> Result<Option<Received>> {
        self.reference.check_complete()?;
        if self.received {
            trust::producers::check(&self.reference)?;
        }
        trust::sites::check(&self.reference.store)?; // the store's own may permit more
        let Some(payload) = &self.reference.inline else { return Ok(None) };
        // A store of this name may have a policy of its own.
        let store = self.store.clone().or_else(|| registry::get(&self.reference.store.name));
        store.as_ref().map_or(Ok(()), Store::permit)?;
        Received::parse(Buffer::copy_of(payload)).map(Some)
    }
}

impl<T: Decode + Send + Sync + 'static> Factory<T> for StoreFactory {
    fn resolve(&self) -> Result<Arc<T>> {
        if let Some(received) = self.permitted()? {
            return T::decode(&received).map(Arc::new);
        }
        let store = self.store()?;
        let key = &self.reference.key;
        let mut target = store.get_shared(key)?;
        if let (None, Some(wait)) = (&target, self.reference.wait) {
            store.wait_for_result(key, wait)?;
            target = store.get_shared(key)?;
        }
        let target = target.ok_or_else(|| store.missing(key))?;
        store.free(&self.reference)?;
        Ok(target)
    }

    fn reference(&self) -> Result<Reference> {
        self.sent(self.reference.clone())
    }

    fn view(&self) -> Result<View> {
        Self::view(self)
    }
}

impl<T: Decode + Send + Sync + 'static> Proxy<T> {
    /// A proxy of what a reference names; nothing is opened or fetched.
    pub fn from_reference(reference: Reference) -> Self {
        Self::new(StoreFactory::from_reference(reference))
    }

    /// A proxy of what a text names; nothing is opened or fetched.
    ///
    /// ```
    /// # fn main() -> proxystore::Result<()> {
    /// use proxystore::{Proxy, Store};
    /// let store = Store::open("memory://proxy-as-text")?;
    /// let text = store.proxy("hello".to_owned())?.to_text()?; // one line: print it, queue it
    /// let proxy: Proxy<String> = Proxy::from_text(&text)?;
    /// assert_eq!(*proxy, "hello");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Reference::from_text`].
    pub fn from_text(text: &str) -> Result<Self> {
        Reference::from_text(text).map(Self::from_reference)
    }
}

impl<T: 'static> Proxy<T> {
    /// The proxy as a line of text, without its secrets (see [`Reference::to_text`]).
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) when the factory exists in this
    /// process alone.
    pub fn to_text(&self) -> Result<String> {
        self.reference()?.to_text()
    }

    /// The proxy as a line of text by which its object can be read, whatever protects it (see
    /// [`Reference::to_secret_text`]).
    ///
    /// # Errors
    /// As [`to_text`](Self::to_text).
    pub fn to_secret_text(&self) -> Result<String> {
        self.reference()?.to_secret_text()
    }
}

impl<T: 'static> Serialize for Proxy<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.reference().map_err(ser::Error::custom)?.serialize(to)
    }
}

impl<'de, T: Decode + Send + Sync + 'static> Deserialize<'de> for Proxy<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Reference::deserialize(from).map(Self::from_reference)
    }
}

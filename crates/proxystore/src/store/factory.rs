//! The factory that fetches a target from a store, and the proxies that travel by it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use crate::codec::Decode;
use crate::error::Result;
use crate::key::Key;
use crate::proxy::{Factory, Proxy};
use crate::reference::Reference;
use crate::store::{Store, registry};

/// Fetches an object from a store, which it finds or opens by its reference.
#[derive(Debug)]
pub struct StoreFactory {
    reference: Reference,
    /// The store at hand, if the factory was made by it in this process.
    store: Option<Store>,
}

impl StoreFactory {
    /// A factory for an object of a store at hand.
    pub fn new(store: &Store, key: Key) -> Self {
        let reference = Reference::new(Arc::clone(store.config()), key);
        Self { store: Some(store.clone()), ..Self::from_reference(reference) }
    }

    /// A factory for what a reference names.
    pub fn from_reference(reference: Reference) -> Self {
        Self { reference, store: None }
    }

    /// Evicts the object when it is resolved.
    #[must_use]
    pub fn evicting(mut self) -> Self {
        self.reference.evict = true;
        self
    }

    fn store(&self) -> Result<Store> {
        match &self.store {
            Some(store) if !store.is_closed() => Ok(store.clone()),
            _ => registry::get_or_open(&self.reference.store),
        }
    }
}

impl<T: Decode + Send + Sync + 'static> Factory<T> for StoreFactory {
    fn resolve(&self) -> Result<Arc<T>> {
        let store = self.store()?;
        let key = &self.reference.key;
        let target = store.get_shared(key)?.ok_or_else(|| store.missing(key))?;
        if self.reference.evict {
            store.evict(key)?;
        }
        Ok(target)
    }

    fn reference(&self) -> Result<Reference> {
        Ok(self.reference.clone())
    }
}

impl<T: Decode + Send + Sync + 'static> Proxy<T> {
    /// A proxy of what a reference names; nothing is opened or fetched.
    pub fn from_reference(reference: Reference) -> Self {
        Self::new(StoreFactory::from_reference(reference))
    }
}

impl<T: 'static> Serialize for Proxy<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let bytes = self.reference().and_then(|reference| reference.encode());
        to.serialize_bytes(&bytes.map_err(ser::Error::custom)?)
    }
}

impl<'de, T: Decode + Send + Sync + 'static> Deserialize<'de> for Proxy<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let bytes = from.deserialize_byte_buf(BytesVisitor)?;
        Reference::decode(&bytes).map(Self::from_reference).map_err(de::Error::custom)
    }
}

struct BytesVisitor;

impl<'de> de::Visitor<'de> for BytesVisitor {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bytes of a reference")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }

    // Formats without bytes of their own, such as JSON, write a list of numbers.
    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Vec<u8>, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = list.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes)
    }
}

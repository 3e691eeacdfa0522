//! Payloads in and out of a store, for bridges to other languages and for what is built on stores.

use std::ops::Range;
use std::sync::Arc;

use super::protection::{self, Wrapped};
use super::{Operation, Store};
use crate::buffer::Buffer;
use crate::connectors::{Access, Connector, GetOptions, PutOptions};
use crate::error::Result;
use crate::key::{Key, unique_id};
use crate::payload::{Framed, Parts, Payload, Received};
use crate::reference::Reference;

impl Store {
    /// Stores an encoded object.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn put_payload(&self, payload: Payload<'_>, options: &PutOptions) -> Result<Key> {
        self.put_framed(&payload.frame()?, options)
    }

    /// Stores a framed payload.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn put_framed(&self, framed: &Framed<'_>, options: &PutOptions) -> Result<Key> {
        let wrapped = self.wrap(framed, options.key.as_ref())?;
        let parts = wrapped.parts();
        let put = |connector: &dyn Connector| connector.put(&parts, options);
        Ok(wrapped.key(self.timed(Operation::Put, parts.len(), put)?))
    }

    /// A payload as it goes to the channel: with checksums, compressed, sealed, as the store was
    /// told. `key` is the one it will be stored under, if it was made before.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a key that cannot seal what must be sealed,
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for what this build has not.
    pub fn wrap<'a>(&self, framed: &'a Framed<'a>, key: Option<&Key>) -> Result<Wrapped<'a>> {
        let wrapped = self.inner.protection.wrap(framed, key);
        wrapped.map_err(|error| error.with("store", self.name()))
    }

    /// A reference to the payload, which is stored unless it is small enough to travel inside (see
    /// [`StoreBuilder::inline_bytes`](super::StoreBuilder::inline_bytes)).
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn refer(&self, framed: &Framed<'_>, options: &PutOptions) -> Result<Reference> {
        if options.key.is_none()
            && let Some(reference) = self.refer_inline(framed, 0)?
        {
            return Ok(reference);
        }
        Ok(Reference::new(Arc::clone(self.config()), self.put_framed(framed, options)?))
    }

    /// A reference that holds the payload, if it has at most `most` bytes, or is small enough by the
    /// store's own rule; `None` for one that is to be stored.
    ///
    /// # Errors
    /// When the operating system has no random bytes to give.
    pub fn refer_inline(&self, framed: &Framed<'_>, most: usize) -> Result<Option<Reference>> {
        let sealed = self.inner.protection.seal.is_some(); // a text without the secret must tell nothing
        if sealed || framed.len() > most.max(self.inner.inline_bytes) {
            return Ok(None);
        }
        let key = Key::new(unique_id()?, 0, framed.len() as u64);
        let mut reference = Reference::new(Arc::clone(self.config()), key);
        reference.inline = Some(Arc::from(&*framed.parts().to_buffer()));
        Ok(Some(reference))
    }

    /// Copies the stored bytes of an object to a new key; `None` when there is none.
    ///
    /// # Errors
    /// What the channel fails with.
    pub fn copy(&self, key: &Key) -> Result<Option<Key>> {
        self.permit()?;
        let options = GetOptions { access: Access::ReadOnly, ..GetOptions::default() };
        let Some(bytes) = self.read(key, &options)? else { return Ok(None) };
        let parts = Parts::from(&*bytes);
        let put = |connector: &dyn Connector| connector.put(&parts, &PutOptions::default());
        let copy = self.timed(Operation::Put, parts.len(), put)?;
        Ok(Some(copy.sealed(key.seal().cloned())))
    }

    /// Stores many framed payloads at once; all or none.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn put_framed_batch<'a>(
        &self,
        framed: impl IntoIterator<Item = &'a Framed<'a>>,
        options: &PutOptions,
    ) -> Result<Vec<Key>> {
        let wrapped: Vec<Wrapped<'_>> =
            framed.into_iter().map(|framed| self.wrap(framed, None)).collect::<Result<_>>()?;
        let parts: Vec<Parts<'_>> = wrapped.iter().map(Wrapped::parts).collect();
        let bytes = parts.iter().map(Parts::len).sum();
        let put = |connector: &dyn Connector| connector.put_batch(&parts, options);
        let keys = self.timed(Operation::Put, bytes, put)?;
        Ok(wrapped.iter().zip(keys).map(|(wrapped, key)| wrapped.key(key)).collect())
    }

    /// The stored bytes under a key, checked and split into parts.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when the bytes are damaged,
    /// [`ErrorKind::Forbidden`](crate::ErrorKind::Forbidden) where the store may not be read, else
    /// what the channel fails with.
    pub fn get_payload(&self, key: &Key, access: Access) -> Result<Option<Received>> {
        self.permit()?;
        self.fetch(key, access)
    }

    /// As `get_payload`, wherever this process runs.
    pub(crate) fn fetch(&self, key: &Key, access: Access) -> Result<Option<Received>> {
        let options = GetOptions { access, ..GetOptions::default() };
        let Some(bytes) = self.read(key, &options)? else { return Ok(None) };
        protection::unwrap(bytes, key.seal()).map(Some).map_err(|error| self.about(error, key))
    }

    /// Stored bytes, as they are in the channel.
    pub(super) fn read(&self, key: &Key, options: &GetOptions) -> Result<Option<Buffer>> {
        let bytes = self.timed(Operation::Get, 0, |connector| connector.get(key, options))?;
        self.count_read(bytes.as_deref().map(<[u8]>::len));
        Ok(bytes)
    }

    /// As `read` with a range, into memory of the caller; whether the object is there.
    pub(super) fn read_into(
        &self,
        key: &Key,
        range: Range<u64>,
        target: &mut [u8],
    ) -> Result<bool> {
        let len = target.len();
        let get = |connector: &dyn Connector| connector.get_into(key, Some(range), target);
        let found = self.timed(Operation::Get, 0, get)?;
        self.count_read(found.then_some(len));
        Ok(found)
    }

    fn count_read(&self, bytes: Option<usize>) {
        match (bytes, &self.inner.metrics) {
            (None, _) => self.count(Operation::Missing),
            (Some(bytes), Some(metrics)) => metrics.add_bytes(Operation::Get, bytes),
            _ => {}
        }
    }
}

//! Reading parts of one object by ranges.

use std::ops::Range;

use crate::buffer::Buffer;
use crate::connectors::{Access, GetOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::payload::{Head, PRELUDE};
use crate::store::Store;

/// How much is read at first when the size of the object is known: most heads fit.
const FIRST_READ: u64 = 4096;

/// One object, of which only the head was read; its parts are read by ranges as they are needed.
///
/// On channels without range reads the whole object was read, and ranges are cut from it.
#[derive(Debug)]
pub struct ObjectReader {
    store: Store,
    key: Key,
    head: Head,
    whole: Option<Buffer>,
}

impl Store {
    /// Reads the head of an object; `None` when there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when the head is damaged, else what the channel fails with.
    pub fn reader(&self, key: &Key) -> Result<Option<ObjectReader>> {
        let open = |bytes: &[u8], whole| {
            let head = Head::parse(bytes).map_err(|error| self.about(error, key))?;
            Ok(Some(ObjectReader { store: self.clone(), key: key.clone(), head, whole }))
        };
        if !self.connector().capabilities().range_reads {
            let Some(received) = self.get_payload(key, Access::ReadOnly)? else { return Ok(None) };
            let whole = received.into_bytes();
            return open(&whole, Some(whole.clone()));
        }
        let first = key.size().clamp(PRELUDE as u64, FIRST_READ);
        let Some(start) = self.get_range(key, 0..first)? else { return Ok(None) };
        let len = Head::length(&start).map_err(|error| self.about(error, key))?;
        if len <= start.len() {
            return open(&start, None);
        }
        match self.get_range(key, 0..len as u64)? {
            Some(start) => open(&start, None),
            None => Ok(None), // evicted meanwhile
        }
    }

    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Buffer>> {
        let options =
            GetOptions { access: Access::ReadOnly, range: Some(range), ..GetOptions::default() };
        self.read(key, &options)
    }
}

impl ObjectReader {
    /// Which codec wrote the object, its metadata, and where its parts are.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The key of the object.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The bytes `range` of a part, counted from its start.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a range outside the part, [`ErrorKind::NotFound`] when the object
    /// is there no more, else what the channel fails with.
    pub fn read(&self, part: usize, range: Range<u64>) -> Result<Buffer> {
        let range = self.locate(part, range)?;
        if let Some(whole) = &self.whole {
            return Ok(whole.slice(range.start as usize..range.end as usize)); // within the object
        }
        if range.is_empty() {
            return Ok(Buffer::zeroed(0));
        }
        self.store.get_range(&self.key, range)?.ok_or_else(|| self.store.missing(&self.key))
    }

    /// As [`read`](Self::read), into memory of the caller.
    ///
    /// # Errors
    /// As [`read`](Self::read); [`ErrorKind::Config`] for a target of another length.
    pub fn read_into(&self, part: usize, range: Range<u64>, target: &mut [u8]) -> Result<()> {
        let bytes = self.read(part, range)?;
        if bytes.len() != target.len() {
            return Err(self.misread("the target has another length than the range"));
        }
        target.copy_from_slice(&bytes);
        Ok(())
    }

    fn locate(&self, part: usize, range: Range<u64>) -> Result<Range<u64>> {
        let Some(place) = self.head.parts().get(part) else {
            return Err(self.misread("it has no such part").with("part", part));
        };
        match place.start.checked_add(range.end) {
            Some(end) if range.start <= range.end && end <= place.end => {
                Ok(place.start + range.start..end)
            }
            _ => Err(self
                .misread("the range lies outside the part")
                .with("range", format_args!("{range:?}"))
                .with("bytes", place.end - place.start)),
        }
    }

    fn misread(&self, cause: &'static str) -> Error {
        self.store
            .about(Error::new(ErrorKind::Config, "read a part of an object", cause), &self.key)
    }
}

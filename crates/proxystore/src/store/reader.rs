//! Reading parts of one object by ranges.

use std::ops::Range;

use crate::buffer::Buffer;
use crate::connectors::{Access, GetOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::payload::{Envelope, Head, PRELUDE, is_envelope};
use crate::seal::tampered;
use crate::store::Store;

/// How much is read at first when the size of the object is known: most heads fit.
const FIRST_READ: u64 = 4096;

/// One object, of which only the head was read; its parts are read by ranges as they are needed.
///
/// Objects with checksums, compressed and sealed ones are read by whole chunks of 256 KiB. On
/// channels without range reads the whole object was read, and ranges are cut from it.
#[derive(Debug)]
pub struct ObjectReader {
    source: Source,
    head: Head,
}

impl Store {
    /// Reads the head of an object; `None` when there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when the head is damaged, [`ErrorKind::Forbidden`] where the store may
    /// not be read, else what the channel fails with.
    pub fn reader(&self, key: &Key) -> Result<Option<ObjectReader>> {
        self.permit()?;
        self.look_into(key)
    }

    /// As `reader`, wherever this process runs.
    pub(crate) fn look_into(&self, key: &Key) -> Result<Option<ObjectReader>> {
        let Some(source) = Source::open(self, key)? else { return Ok(None) };
        let Some(start) = source.start()? else { return Ok(None) };
        let head = Head::parse(&start).map_err(|error| self.about(error, key))?;
        if source.len().is_some_and(|len| len != head.len()) {
            let cause = "its head speaks of another length than the object has";
            return Err(self.about(Error::new(ErrorKind::Corrupt, "read a payload", cause), key));
        }
        Ok(Some(ObjectReader { source, head }))
    }
}

impl ObjectReader {
    /// Which codec wrote the object, its metadata, and where its parts are.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The key of the object.
    pub fn key(&self) -> &Key {
        &self.source.key
    }

    /// The bytes `range` of a part, counted from its start.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a range outside the part, [`ErrorKind::NotFound`] when the object
    /// is there no more, else what the channel fails with.
    pub fn read(&self, part: usize, range: Range<u64>) -> Result<Buffer> {
        let range = self.locate(part, range)?;
        if range.is_empty() {
            return Ok(Buffer::zeroed(0));
        }
        let checkable = self.head.checkable(&range);
        let bytes = self.source.read(checkable.clone())?.ok_or_else(|| self.source.missing())?;
        if !self.source.is_whole() {
            self.head.check(&checkable, &bytes).map_err(|error| self.source.about(error))?;
        }
        // lossless: within what was read
        let start = (range.start - checkable.start) as usize;
        Ok(bytes.slice(start..start + (range.end - range.start) as usize))
    }

    /// As [`read`](Self::read), into memory of the caller.
    ///
    /// # Errors
    /// As [`read`](Self::read); [`ErrorKind::Config`] for a target of another length.
    pub fn read_into(&self, part: usize, range: Range<u64>, target: &mut [u8]) -> Result<()> {
        if range.end.checked_sub(range.start) != Some(target.len() as u64) {
            return Err(self.misread("the target has another length than the range"));
        }
        let place = self.locate(part, range.clone())?;
        if self.head.checkable(&place) == place && self.source.read_into(&place, target)? {
            return Ok(());
        }
        target.copy_from_slice(&self.read(part, range)?);
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
        self.source.about(Error::new(ErrorKind::Config, "read a part of an object", cause))
    }
}

/// Where the bytes of a payload come from: the channel, its envelope in the channel, or memory.
#[derive(Debug)]
struct Source {
    store: Store,
    key: Key,
    envelope: Option<Envelope>,
    /// The payload itself, checked.
    whole: Option<Buffer>,
}

impl Source {
    fn open(store: &Store, key: &Key) -> Result<Option<Self>> {
        let mut source =
            Self { store: store.clone(), key: key.clone(), envelope: None, whole: None };
        if !store.connector().capabilities().range_reads {
            let Some(received) = store.fetch(key, Access::ReadOnly)? else { return Ok(None) };
            source.whole = Some(received.into_bytes());
            return Ok(Some(source));
        }
        let Some(start) = source.stored_start()? else { return Ok(None) };
        if is_envelope(&start) {
            let envelope = Envelope::parse(&start, key.seal());
            source.envelope = Some(envelope.map_err(|error| source.about(error))?);
        } else if key.seal().is_some() {
            return Err(source.about(tampered("it is not sealed, though its key says so")));
        }
        Ok(Some(source))
    }

    /// The head as it is stored, or more.
    fn stored_start(&self) -> Result<Option<Buffer>> {
        let first = self.key.size().clamp(PRELUDE as u64, FIRST_READ);
        let Some(start) = self.stored(0..first)? else { return Ok(None) };
        let len = Head::length(&start).map_err(|error| self.about(error))?;
        if len <= start.len() { Ok(Some(start)) } else { self.stored(0..len as u64) }
    }

    /// The head of the payload, or more.
    fn start(&self) -> Result<Option<Buffer>> {
        if let Some(whole) = &self.whole {
            return Ok(Some(whole.clone()));
        }
        let Some(envelope) = &self.envelope else { return self.stored_start() };
        let Some(start) = self.read(0..envelope.len().min(FIRST_READ))? else { return Ok(None) };
        let len = Head::length(&start).map_err(|error| self.about(error))? as u64;
        if len <= start.len() as u64 {
            return Ok(Some(start));
        }
        self.read(0..len.min(envelope.len()))
    }

    /// Length in bytes of the payload; `None` where only its head tells, and the channel notices
    /// when that lies.
    fn len(&self) -> Option<u64> {
        match (&self.whole, &self.envelope) {
            (Some(whole), _) => Some(whole.len() as u64),
            (None, envelope) => envelope.as_ref().map(Envelope::len),
        }
    }

    /// Bytes of the payload; `None` when the object is there no more.
    fn read(&self, range: Range<u64>) -> Result<Option<Buffer>> {
        // lossless below: ranges lie within what is in memory
        let slice = |bytes: &Buffer, from: u64| {
            bytes.slice((range.start - from) as usize..(range.end - from) as usize)
        };
        if let Some(whole) = &self.whole {
            return Ok(Some(slice(whole, 0)));
        }
        let Some(envelope) = &self.envelope else { return self.stored(range) };
        let chunks = envelope.chunks(&range);
        let Some(stored) = self.stored(envelope.stored(&chunks))? else { return Ok(None) };
        let opened = envelope.open(&chunks, &stored);
        let (start, bytes) = opened.map_err(|error| self.about(error))?;
        Ok(Some(slice(&bytes, start)))
    }

    /// Reads straight into memory of the caller, where nothing has to be done to the bytes.
    fn read_into(&self, range: &Range<u64>, target: &mut [u8]) -> Result<bool> {
        if self.whole.is_some() || self.envelope.is_some() || target.is_empty() {
            return Ok(false);
        }
        let found = self.store.read_into(&self.key, range.clone(), target);
        if found.map_err(|error| self.about(error))? { Ok(true) } else { Err(self.missing()) }
    }

    /// Bytes of the object as it is stored.
    fn stored(&self, range: Range<u64>) -> Result<Option<Buffer>> {
        let options =
            GetOptions { access: Access::ReadOnly, range: Some(range), ..GetOptions::default() };
        self.store.read(&self.key, &options)
    }

    fn is_whole(&self) -> bool {
        self.whole.is_some()
    }

    fn missing(&self) -> Error {
        self.store.missing(&self.key)
    }

    fn about(&self, error: Error) -> Error {
        self.store.about(error, &self.key)
    }
}

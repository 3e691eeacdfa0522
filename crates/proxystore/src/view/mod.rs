//! Views: objects of which only those parts are read that are used.
//!
//! A [`View`] has read the head of an object: which codec wrote it, its shape, its length. Whatever is
//! asked of it then is read by ranges, on channels that have
//! [range reads](crate::connectors::Capabilities::range_reads); others read the whole object once.
//!
//! ```
//! # fn main() -> proxystore::Result<()> {
//! use proxystore::{Store, codec::Array, view::Selection};
//! let store = Store::open("memory://views")?;
//! let key = store.put(&Array::from_vec(&[1000, 3], vec![0.5_f64; 3000])?)?;
//!
//! let view = store.view(&key)?;
//! assert_eq!((view.shape(), view.dtype(), view.nbytes()), (&[1000, 3][..], Some("<f8"), 24_000));
//! let array = view.array::<f64>()?;
//! assert_eq!(array.rows(10..20)?.shape(), [10, 3]);
//! assert_eq!(array.row(999)?.len(), 3);
//! let column = array.slice(&[Selection::from(..), Selection::from(-1)])?;
//! assert_eq!(column.shape(), [1000]);
//! # Ok(()) }
//! ```
//!
//! | stored | what a view reads of it |
//! | --- | --- |
//! | arrays | selections: [`View::array`] |
//! | raw bytes | ranges: [`View::bytes`] |
//! | tables | columns: `View::column` (feature `arrow`) |
//! | text | all of it: its characters have no fixed places |
//! | everything else | all of it: [`View::load`] |
//!
//! A view neither resolves a proxy nor evicts what it reads, and reads past the store's cache. The view of
//! a key without generation, such as a future's, reads whichever object is current at each read.

mod array;
mod load;
mod plan;
mod selection;
#[cfg(feature = "arrow")]
mod table;

use std::ops::Range;

pub use array::{ArrayReader, Selected};
pub use load::LoadOptions;
pub use selection::Selection;

use array::Layout;

use crate::buffer::Buffer;
use crate::codec::{self, Decode, Failure, RAW};
use crate::connectors::Access;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::payload::{Head, Received};
use crate::proxy::Proxy;
use crate::store::{ObjectReader, Store, StoreFactory};

/// More memory than is taken on the word of a head, in bytes.
const MUCH: u64 = 64 << 20;

/// An object of which parts are read as they are used; the module tells more.
#[derive(Debug)]
pub struct View {
    source: Source,
    /// Shape and elements, if it is an array.
    layout: Option<Layout>,
    shape: Vec<u64>,
}

/// Where the bytes come from.
#[derive(Debug)]
enum Source {
    Channel(Box<ObjectReader>),
    /// The object travelled inside its reference.
    Here(Received),
}

impl Source {
    fn head(&self) -> &Head {
        match self {
            Self::Channel(reader) => reader.head(),
            Self::Here(received) => received.head(),
        }
    }

    fn read(&self, part: usize, range: Range<u64>) -> Result<Buffer> {
        match self {
            Self::Channel(reader) => reader.read(part, range),
            Self::Here(received) => {
                let bytes = received.part(part).ok_or_else(|| outside(&range, 0))?;
                if range.start > range.end || range.end > bytes.len() as u64 {
                    return Err(outside(&range, bytes.len() as u64));
                }
                Ok(bytes.slice(range.start as usize..range.end as usize))
            }
        }
    }

    /// Before much memory is made ready for a part: looks whether the part ends where the head
    /// says, since a damaged head may say anything.
    fn check_end(&self, part: usize, memory: u64) -> Result<()> {
        let end = self.head().parts().get(part).map_or(0, |place| place.end - place.start);
        if memory < MUCH || end == 0 {
            return Ok(());
        }
        self.read(part, end - 1..end).map(drop)
    }

    fn read_into(&self, part: usize, range: Range<u64>, target: &mut [u8]) -> Result<()> {
        match self {
            Self::Channel(reader) => reader.read_into(part, range, target),
            Self::Here(_) => {
                target.copy_from_slice(&self.read(part, range)?); // as long, by construction
                Ok(())
            }
        }
    }
}

impl Store {
    /// A view of the object under a key, of which the head is read.
    ///
    /// # Errors
    /// As resolving a proxy of it: [`ErrorKind::NotFound`] when there is none,
    /// [`ErrorKind::Failed`] when it is the failure of a future, else what the channel fails with.
    pub fn view(&self, key: &Key) -> Result<View> {
        let reader = self.reader(key)?.ok_or_else(|| self.missing(key))?;
        if reader.head().codec() == codec::FAILURE {
            // Small, and read as a whole.
            let failure = self.failure(key)?.ok_or_else(|| self.missing(key))?;
            return Err(failure.to_error().with("store", self.name()).with("key", key));
        }
        View::of_reader(reader)
    }
}

impl StoreFactory {
    /// A view of the object; waits for that of a future, as resolving does, and evicts nothing.
    ///
    /// # Errors
    /// As [`Store::view`], and [`ErrorKind::Timeout`] or [`ErrorKind::Abandoned`] for a future that
    /// is not set; [`ErrorKind::Untrusted`] or [`ErrorKind::Forbidden`] where the object may not be
    /// resolved.
    pub fn view(&self) -> Result<View> {
        if let Some(received) = self.permitted()? {
            return View::of(received);
        }
        let (reference, store) = (self.reference(), self.store()?);
        match (store.view(&reference.key), reference.wait) {
            (Err(error), Some(wait)) if error.kind() == ErrorKind::NotFound => {
                store.wait_for_result(&reference.key, wait)?;
                store.view(&reference.key)
            }
            (view, _) => view,
        }
    }
}

impl<T: 'static> Proxy<T> {
    /// A view of the stored object; the proxy is not resolved.
    ///
    /// # Errors
    /// As [`StoreFactory::view`]; [`ErrorKind::Unsupported`] for the proxy of a local function.
    pub fn view(&self) -> Result<View> {
        self.factory().view()
    }
}

impl View {
    /// A view of what a reader reads.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when the metadata of an array is damaged.
    pub fn of_reader(reader: ObjectReader) -> Result<Self> {
        Self::new(Source::Channel(Box::new(reader)))
    }

    /// A view of a payload at hand.
    ///
    /// # Errors
    /// [`ErrorKind::Failed`] when it is the failure of a future, [`ErrorKind::Corrupt`] when the
    /// metadata of an array is damaged.
    pub fn of(received: Received) -> Result<Self> {
        match Failure::of(&received)? {
            Some(failure) => Err(failure.to_error()),
            None => Self::new(Source::Here(received)),
        }
    }

    fn new(source: Source) -> Result<Self> {
        let layout = Layout::of(source.head())?;
        let mut view = Self { source, layout, shape: Vec::new() };
        view.shape = match &view.layout {
            Some(layout) => layout.shape.clone(),
            None if view.codec() == RAW => vec![view.nbytes()],
            None => Vec::new(),
        };
        Ok(view)
    }

    /// The head: which codec wrote the object, its metadata, and where its parts are.
    pub fn head(&self) -> &Head {
        self.source.head()
    }

    /// Number of the codec that wrote the object.
    pub fn codec(&self) -> u16 {
        self.head().codec()
    }

    /// Lengths of the dimensions of an array, the length of raw bytes, and nothing for other objects.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// NumPy's type string of the elements of an array.
    pub fn dtype(&self) -> Option<&str> {
        self.layout.as_ref().map(|layout| &*layout.dtype)
    }

    /// Bytes of the object, without what describes it.
    pub fn nbytes(&self) -> u64 {
        self.head().parts().iter().map(|part| part.end - part.start).sum()
    }

    /// Reads a range of raw bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`] for another object, [`ErrorKind::Config`] for a range that reaches
    /// past the end, else what the channel fails with.
    pub fn bytes(&self, range: Range<u64>) -> Result<Buffer> {
        if self.codec() != RAW {
            return Err(self.unlike("read a range of bytes", "no raw bytes"));
        }
        self.source.read(0, range)
    }

    /// Reads a range of a part into memory of the caller, which is as long, piece by piece; `go_on` is
    /// called after each, with the bytes that are there.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a range outside the part or a target of another length, what `go_on`
    /// fails with, else what the channel fails with.
    pub fn read_into(
        &self,
        part: usize,
        range: Range<u64>,
        target: &mut [u8],
        go_on: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        if range.end.checked_sub(range.start) != Some(target.len() as u64) {
            return Err(outside(&range, target.len() as u64));
        }
        let mut at = range.start;
        for piece in target.chunks_mut(plan::Limits::USUAL.piece as usize) {
            let end = at + piece.len() as u64;
            self.source.read_into(part, at..end, piece)?;
            at = end;
            go_on(at - range.start)?;
        }
        Ok(())
    }

    /// Reads the whole object.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn load<T: Decode>(&self) -> Result<T> {
        self.load_with(LoadOptions::default())
    }

    /// Reads the whole object by parallel ranges, see [`LoadOptions`].
    ///
    /// # Errors
    /// As [`Store::get`]; [`ErrorKind::Cancelled`] when the progress function says so.
    pub fn load_with<T: Decode>(&self, options: LoadOptions<'_>) -> Result<T> {
        T::decode(&self.load_payload(T::ACCESS, options)?).map_err(|error| self.about(error))
    }

    /// Reads the whole payload by parallel ranges; for bridges to other languages.
    ///
    /// # Errors
    /// As [`load_with`](Self::load_with).
    pub fn load_payload(&self, access: Access, options: LoadOptions<'_>) -> Result<Received> {
        if let (Source::Here(received), Access::ReadOnly) = (&self.source, access) {
            return Ok(received.clone());
        }
        load::load(&self.source, access, options)
    }

    /// The error for an object of another kind than is asked for.
    fn unlike(&self, operation: &'static str, cause: &'static str) -> Error {
        let error = Error::new(ErrorKind::Incompatible, operation, format!("it is {cause}"))
            .with("codec", codec::name(self.codec()))
            .with_hint(
                "parts are read of arrays, raw bytes and tables alone: store the object as one, or \
                 load the whole with View::load",
            );
        self.about(error)
    }

    /// Adds which object it is.
    fn about(&self, error: Error) -> Error {
        match &self.source {
            Source::Channel(reader) => error.with("key", reader.key()),
            Source::Here(_) => error,
        }
    }
}

/// What is done between reads by those who have nothing to do.
#[expect(clippy::unnecessary_wraps, reason = "one of many functions that may fail")]
fn nothing_else_to_do(_: u64) -> Result<()> {
    Ok(())
}

fn outside(range: &Range<u64>, len: u64) -> Error {
    Error::new(ErrorKind::Config, "read a part of an object", "the range does not fit")
        .with("range", format_args!("{range:?}"))
        .with("bytes", len)
}

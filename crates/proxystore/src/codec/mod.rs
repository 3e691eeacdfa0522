//! Codecs: how a target becomes a payload and comes back.
//!
//! A type chooses its codec by implementing [`Encode`] and [`Decode`]. Provided are
//!
//! | codec | types | read by other languages |
//! | --- | --- | --- |
//! | raw bytes | `Vec<u8>`, [`Buffer`] (no copy on the way out) | yes |
//! | UTF-8 | `String` | yes |
//! | MessagePack | [`MessagePack<T>`] and every type named in [`messagepack!`](crate::messagepack) | yes |
//! | array | [`Array<T>`], vectors of numbers, `ndarray` types (feature `ndarray`) | yes, as NumPy arrays |
//! | table | `Table`, `RecordBatch` (feature `arrow`) | yes, as pyarrow, pandas and polars tables |
//!
//! A program that does not know beforehand what it will get reads an [`AnyArray`], or a
//! [`MessagePack<T>`] of a type that holds any value, such as `rmpv::Value`.
//!
//! Codec numbers are part of the payload format (`docs/protocol.md`).

mod any_array;
mod array;
#[cfg(feature = "arrow")]
mod arrow;
mod element;
mod failure;
mod message_pack;
#[cfg(feature = "ndarray")]
mod ndarray;
mod table;

pub use any_array::AnyArray;
pub use array::{Array, ArrayMut, Order, array_meta, read_array_meta};
#[cfg(feature = "arrow")]
pub use arrow::{Column, Table};
pub use element::{Bool, Element};
pub use failure::Failure;
pub use message_pack::MessagePack;
#[doc(hidden)]
pub use message_pack::{decode as message_pack_decode, encode as message_pack_encode};
pub use table::TableMeta;

use crate::buffer::Buffer;
use crate::connectors::Access;
use crate::error::{Error, ErrorKind, Result};
use crate::facts::Facts;
use crate::payload::{Payload, Received};

/// Number of the raw bytes codec.
pub const RAW: u16 = 1;
/// Number of the UTF-8 codec.
pub const UTF8: u16 = 2;
/// Number of the MessagePack codec.
pub const MESSAGE_PACK: u16 = 3;
/// Number of the n-dimensional array codec.
pub const ARRAY: u16 = 4;
/// Number of the [`Failure`] codec.
pub const FAILURE: u16 = 5;
/// Number of the table codec: Arrow streams, one a column.
pub const TABLE: u16 = 6;
/// Number of Python's pickle with out-of-band buffers; only the Python package reads it.
pub const PICKLE: u16 = 16;
/// Number of bytes made by a serializer function of the user's; only the Python package reads it.
pub const CUSTOM: u16 = 17;

/// An object that can be stored.
pub trait Encode {
    /// The payload, borrowing large parts from the object.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`] when the object has no representation in its codec.
    fn encode(&self) -> Result<Payload<'_>>;

    /// What is worth knowing of the object without fetching it; nothing unless a type says so. It
    /// travels in the references of proxies, and is asked for each, so it must be cheap.
    fn facts(&self) -> Facts {
        Facts::default()
    }
}

/// An object that can be got back.
pub trait Decode: Sized {
    /// What kind of memory decoding wants; read-only is the fastest.
    const ACCESS: Access = Access::ReadOnly;

    /// The object a payload stands for.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`] when the payload holds something else, and
    /// [`ErrorKind::Incompatible`] when it was written by another codec.
    fn decode(received: &Received) -> Result<Self>;
}

/// Name of a codec, for messages.
pub fn name(codec: u16) -> &'static str {
    match codec {
        RAW => "raw bytes",
        UTF8 => "UTF-8",
        MESSAGE_PACK => "MessagePack",
        ARRAY => "array",
        FAILURE => "failure",
        TABLE => "table",
        PICKLE => "Python pickle",
        CUSTOM => "custom serializer",
        _ => "unknown",
    }
}

/// Checks that a payload was written by the codec the reader expects.
///
/// # Errors
/// [`ErrorKind::Incompatible`] naming both codecs.
pub fn expect(received: &Received, codec: u16) -> Result<()> {
    if received.codec() == codec {
        return Ok(());
    }
    let error = Error::new(ErrorKind::Incompatible, "decode object", "another codec wrote it")
        .with("expected", name(codec))
        .with("found", format_args!("{} ({})", name(received.codec()), received.codec()));
    Err(match received.codec() {
        PICKLE | CUSTOM => error.with_hint(
            "only Python reads this; store it from Python as bytes, str or an array instead",
        ),
        RAW | UTF8 | MESSAGE_PACK | ARRAY | TABLE => {
            error.with_hint("ask for the type that was stored")
        }
        _ => error.with_hint("upgrade this program to the version that wrote the object"),
    })
}

/// The only part of a payload that must have exactly one.
pub(crate) fn single_part(received: &Received) -> Result<Buffer> {
    match (received.part(0), received.part_count()) {
        (Some(part), 1) => Ok(part),
        (_, count) => Err(Error::new(ErrorKind::Corrupt, "decode object", "not one part")
            .with("codec", name(received.codec()))
            .with("parts", count)),
    }
}

impl Encode for [u8] {
    fn encode(&self) -> Result<Payload<'_>> {
        Ok(Payload::new(RAW, &[][..]).with_part(self))
    }

    fn facts(&self) -> Facts {
        Facts::of_len(self.len())
    }
}

impl Encode for Vec<u8> {
    fn encode(&self) -> Result<Payload<'_>> {
        self.as_slice().encode()
    }

    fn facts(&self) -> Facts {
        self.as_slice().facts()
    }
}

impl Decode for Vec<u8> {
    fn decode(received: &Received) -> Result<Self> {
        expect(received, RAW)?;
        Ok(single_part(received)?.to_vec())
    }
}

impl Encode for Buffer {
    fn encode(&self) -> Result<Payload<'_>> {
        (**self).encode()
    }

    fn facts(&self) -> Facts {
        (**self).facts()
    }
}

impl Decode for Buffer {
    fn decode(received: &Received) -> Result<Self> {
        expect(received, RAW)?;
        single_part(received)
    }
}

// Without its length: readers count code points, which takes reading all of it.
impl Encode for str {
    fn encode(&self) -> Result<Payload<'_>> {
        Ok(Payload::new(UTF8, &[][..]).with_part(self.as_bytes()))
    }
}

impl Encode for String {
    fn encode(&self) -> Result<Payload<'_>> {
        self.as_str().encode()
    }
}

impl Decode for String {
    fn decode(received: &Received) -> Result<Self> {
        expect(received, UTF8)?;
        Self::from_utf8(single_part(received)?.to_vec()).map_err(|source| {
            Error::new(ErrorKind::Decode, "decode text", "it is not UTF-8").with_source(source)
        })
    }
}

//! Bytes of a part, as whoever encodes has them.

use std::ops::Deref;

use crate::buffer::Buffer;

/// Bytes borrowed from an object, or memory of their own that is not copied to be framed.
#[derive(Debug, Clone)]
pub enum Bytes<'a> {
    /// Memory of the object.
    Borrowed(&'a [u8]),
    /// Memory with an owner.
    Owned(Buffer),
}

impl Bytes<'_> {
    /// The same bytes without a lifetime: borrowed ones are copied.
    #[must_use]
    pub fn into_owned(self) -> Bytes<'static> {
        Bytes::Owned(match self {
            Self::Borrowed(bytes) => Buffer::copy_of(bytes),
            Self::Owned(buffer) => buffer,
        })
    }
}

impl Deref for Bytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(buffer) => buffer,
        }
    }
}

impl Default for Bytes<'_> {
    fn default() -> Self {
        Self::Borrowed(&[])
    }
}

impl<'a> From<&'a [u8]> for Bytes<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Borrowed(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Bytes<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::Borrowed(bytes)
    }
}

impl From<Vec<u8>> for Bytes<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Owned(bytes.into())
    }
}

impl From<Buffer> for Bytes<'_> {
    fn from(buffer: Buffer) -> Self {
        Self::Owned(buffer)
    }
}

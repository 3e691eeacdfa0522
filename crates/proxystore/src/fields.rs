//! Tagged fields: what references and the messages of streams are made of.
//!
//! A field is a tag, the length of its value as a varint, and the value. Tags with the high bit must
//! be understood by the reader; others may be skipped.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};

/// Fields whose number has this bit must be understood by the reader.
pub(crate) const CRITICAL: u8 = 0x80;

pub(crate) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80); // the low seven bits, more to come
        value >>= 7;
    }
    out.push(value as u8); // below 0x80
}

pub(crate) fn field(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    out.push(tag);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

pub(crate) fn number(out: &mut Vec<u8>, tag: u8, value: u64) {
    let mut bytes = Vec::with_capacity(10);
    varint(&mut bytes, value);
    field(out, tag, &bytes);
}

/// A tag, its value, and what comes after.
pub(crate) type Field<'a> = (u8, &'a [u8], &'a [u8]);

/// Reads what fields make up; says what in its errors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    /// First bytes: three letters and the version.
    pub(crate) magic: [u8; 4],
    /// Completes "failed to …".
    pub(crate) operation: &'static str,
    /// Why bytes may be something else.
    pub(crate) hint: &'static str,
}

impl Format {
    /// What follows the magic and the version.
    pub(crate) fn begin(self, bytes: &[u8]) -> Result<&[u8]> {
        let Some(rest) = bytes.strip_prefix(&self.magic[..3]) else {
            return Err(self.corrupt("these bytes are something else"));
        };
        match rest.split_first() {
            Some((&version, fields)) if version == self.magic[3] => Ok(fields),
            Some((version, _)) => Err(self.newer("version", version)),
            None => Err(self.corrupt("it is cut short")),
        }
    }

    /// The next field's tag and value, and what comes after.
    pub(crate) fn next(self, bytes: &[u8]) -> Result<Option<Field<'_>>> {
        let Some((&tag, after)) = bytes.split_first() else { return Ok(None) };
        let (value, rest) = self.take_value(after)?;
        Ok(Some((tag, value, rest)))
    }

    pub(crate) fn take_value(self, bytes: &[u8]) -> Result<(&[u8], &[u8])> {
        let (len, rest) = self.take_varint(bytes)?;
        usize::try_from(len)
            .ok()
            .and_then(|len| rest.split_at_checked(len))
            .ok_or_else(|| self.corrupt("a field is cut short"))
    }

    pub(crate) fn take_varint(self, bytes: &[u8]) -> Result<(u64, &[u8])> {
        let mut value = 0_u64;
        for (i, &byte) in bytes.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            let shifted = bits << (7 * i);
            if shifted >> (7 * i) != bits {
                break;
            }
            value |= shifted;
            if byte < 0x80 {
                return Ok((value, &bytes[i + 1..]));
            }
        }
        Err(self.corrupt("a number is cut short or too large"))
    }

    pub(crate) fn whole_varint(self, bytes: &[u8]) -> Result<u64> {
        match self.take_varint(bytes)? {
            (value, []) => Ok(value),
            _ => Err(self.corrupt("a number has bytes after its end")),
        }
    }

    pub(crate) fn exactly<const N: usize>(self, bytes: &[u8]) -> Result<[u8; N]> {
        bytes.try_into().map_err(|source| {
            self.corrupt("a field has another length than it must").with_source(source)
        })
    }

    pub(crate) fn text(self, bytes: &[u8]) -> Result<String> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(source) => Err(self.corrupt("a text field is not UTF-8").with_source(source)),
        }
    }

    #[cold]
    pub(crate) fn corrupt(self, cause: &'static str) -> Error {
        Error::new(ErrorKind::Corrupt, self.operation, cause).with_hint(self.hint)
    }

    #[cold]
    pub(crate) fn newer(self, what: &'static str, value: impl fmt::Display) -> Error {
        Error::new(
            ErrorKind::Incompatible,
            self.operation,
            "a newer version of ProxyStore wrote it",
        )
        .with(what, value)
        .with_hint("upgrade this program to the version of the sender")
    }
}

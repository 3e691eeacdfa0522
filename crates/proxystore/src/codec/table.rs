//! Metadata of the table codec; the tables themselves are Arrow's, and need its library.
//!
//! Part 0 is an Arrow IPC stream of the schema without any batch, and part `1 + i` one of column
//! `i` alone with all its batches: a column is read by reading one part.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// What the metadata of a table says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableMeta {
    /// What was stored, a hint for giving back the same: `pyarrow`, `batch`, `pandas`, `polars`,
    /// `rust`; a reader that knows no such thing gives back what it has.
    pub kind: String,
    /// Number of rows.
    pub rows: u64,
    /// Names of the columns, in order; a name can occur more than once.
    pub columns: Vec<String>,
}

impl TableMeta {
    /// The metadata out of a payload.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when it is damaged.
    pub fn read(meta: &[u8]) -> Result<Self> {
        rmp_serde::from_slice(meta).map_err(|source| {
            Error::new(ErrorKind::Corrupt, "decode table", source.to_string()).with_source(source)
        })
    }

    /// The metadata for a payload: a MessagePack map.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`] never in practice: the metadata is plain data.
    pub fn write(&self) -> Result<Vec<u8>> {
        rmp_serde::to_vec_named(self).map_err(|source| {
            Error::new(ErrorKind::Encode, "encode table", source.to_string()).with_source(source)
        })
    }

    /// Number of the part that holds the first column of that name.
    pub fn part_of(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|name| name == column).map(|index| 1 + index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_as_documented() {
        let meta = TableMeta {
            kind: "polars".to_owned(),
            rows: 1000,
            columns: vec!["x".to_owned(), "label".to_owned()],
        };
        let bytes = meta.write().unwrap();
        assert_eq!(
            bytes,
            b"\x83\xa4kind\xa6polars\xa4rows\xcd\x03\xe8\xa7columns\x92\xa1x\xa5label"
        );
        assert_eq!(TableMeta::read(&bytes).unwrap(), meta);
        assert_eq!(meta.part_of("label"), Some(2));
        assert_eq!(meta.part_of("y"), None);
        assert_eq!(TableMeta::read(&bytes[1..]).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn later_additions_are_skipped() {
        let bytes = b"\x84\xa4kind\xa4rust\xa4rows\x00\xa7columns\x90\xa3new\xc3";
        assert_eq!(TableMeta::read(bytes).unwrap().kind, "rust");
    }
}

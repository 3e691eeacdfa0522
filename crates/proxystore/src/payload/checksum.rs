//! Checksums of the bytes after a payload's head, one a chunk.

use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

use super::chunks::{CHUNK_LOG2, Grid};
use super::{Framed, Layout, Parts};
use crate::error::{Error, ErrorKind, Result};

/// Bytes of one checksum.
pub(super) const SIZE: usize = 8;

/// The checksums in a head.
#[derive(Debug, Clone)]
pub(super) struct Checksums {
    /// Chunks of the body: from the first part to the end.
    pub(super) grid: Grid,
    /// Where the body starts in the payload.
    pub(super) start: u64,
    pub(super) table: Vec<u64>,
}

impl Checksums {
    /// Checks consecutive chunks from the one with the number `first` on.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] naming the place.
    pub(super) fn check(&self, first: u64, chunks: &[u8]) -> Result<()> {
        for (index, chunk) in (first..).zip(chunks.chunks(1 << self.grid.log2())) {
            // lossless: as many as the head has room for
            if self.table.get(index as usize) != Some(&xxh3_64(chunk)) {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    "read a payload",
                    "a checksum does not match: the bytes were altered",
                )
                .with("at byte", self.start + self.grid.chunk(index).start)
                .with_hint("store the object again, and check the channel's disk or memory"));
            }
        }
        Ok(())
    }
}

/// The checksums of all bytes from `from` on.
fn of_parts(parts: &Parts<'_>, from: usize) -> impl Iterator<Item = u64> {
    parts.pieces(from, 1 << CHUNK_LOG2).map(|piece| match piece.slices() {
        [whole] => xxh3_64(whole),
        slices => {
            let mut hash = Xxh3Default::new();
            for slice in slices {
                hash.update(slice);
            }
            hash.digest()
        }
    })
}

impl Framed<'_> {
    /// The same payload with a checksum for every chunk of its parts.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`] when its head would pass 4 GB.
    pub(crate) fn checked(&self) -> Result<Checked<'_>> {
        // Parts lie the same way behind a head of any length, up to where they start.
        let laid_out =
            |table: &[u8]| Layout::of(self.codec, &self.parts, table, &self.meta, CHUNK_LOG2);
        let plain = laid_out(&[])?;
        let start = plain.offsets.first().copied().unwrap_or(plain.len);
        let parts = plain.parts(&self.parts);
        let table: Vec<u8> = of_parts(&parts, start).flat_map(u64::to_le_bytes).collect();
        Ok(Checked { framed: self, layout: laid_out(&table)? })
    }
}

/// A payload with checksums.
#[derive(Debug)]
pub(crate) struct Checked<'a> {
    framed: &'a Framed<'a>,
    layout: Layout,
}

impl Checked<'_> {
    /// The scatter list.
    pub(crate) fn parts(&self) -> Parts<'_> {
        self.layout.parts(&self.framed.parts)
    }
}

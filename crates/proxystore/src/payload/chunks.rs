//! Chunks: the pieces of a payload that are checked, compressed and sealed one by one, so that
//! ranges can be read without the rest.

use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};
use crate::payload::Parts;

/// Logarithm of the length of the chunks written here: 256 KiB. A range costs at most two chunks
/// more than it has; a gigabyte has 4096 chunks, whose checksums are 32 kB.
pub(crate) const CHUNK_LOG2: u8 = 18;

/// How a run of bytes is cut into chunks: all but the last are as long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    log2: u8,
    len: u64,
}

impl Grid {
    /// Chunks of this length over `len` bytes.
    pub(crate) fn new(log2: u8, len: u64) -> Self {
        Self { log2, len }
    }

    /// The grid somebody else wrote down.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for chunks of less than 4 KiB or more than 1 GiB.
    pub(crate) fn read(log2: u8, len: u64) -> Result<Self> {
        if !(12..=30).contains(&log2) {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "read a payload",
                "its chunks have no length",
            )
            .with("log2", log2));
        }
        Ok(Self { log2, len })
    }

    /// How many bytes all chunks have.
    pub(crate) fn len(self) -> u64 {
        self.len
    }

    /// Logarithm of the length of a chunk.
    pub(crate) fn log2(self) -> u8 {
        self.log2
    }

    /// How many chunks there are.
    pub(crate) fn count(self) -> u64 {
        self.len.div_ceil(1 << self.log2)
    }

    /// The bytes of a chunk.
    pub(crate) fn chunk(self, index: u64) -> Range<u64> {
        let start = index << self.log2;
        start..self.len.min(start + (1 << self.log2))
    }

    /// The chunks that have bytes of a range.
    pub(crate) fn covering(self, range: &Range<u64>) -> Range<u64> {
        if range.is_empty() {
            return 0..0;
        }
        range.start >> self.log2..((range.end - 1) >> self.log2) + 1
    }

    /// The bytes of several chunks in a row.
    pub(crate) fn span(self, chunks: &Range<u64>) -> Range<u64> {
        chunks.start << self.log2..self.len.min(chunks.end << self.log2)
    }
}

impl<'a> Parts<'a> {
    /// Walks over `len` bytes at a time: each piece is a list of slices.
    pub(crate) fn pieces(&self, from: usize, len: usize) -> impl Iterator<Item = Parts<'a>> {
        let (mut slices, mut skip) = (self.slices().iter().copied(), from);
        let mut rest: &[u8] = &[];
        std::iter::from_fn(move || {
            let mut piece = Parts::default();
            while piece.len() < len {
                if rest.is_empty() {
                    let Some(slice) = slices.next() else { break };
                    let skipped = skip.min(slice.len());
                    skip -= skipped;
                    rest = &slice[skipped..];
                    continue;
                }
                let (here, after) = rest.split_at(rest.len().min(len - piece.len()));
                piece.push(here);
                rest = after;
            }
            (!piece.is_empty()).then_some(piece)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_are_the_bytes_in_order(
            slices in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
            from in 0_usize..60,
            len in 1_usize..30,
        ) {
            let mut parts = Parts::default();
            for slice in &slices {
                parts.push(slice);
            }
            let all = slices.concat();
            let expected = all.get(from..).unwrap_or_default();
            let pieces: Vec<Vec<u8>> =
                parts.pieces(from, len).map(|piece| piece.to_buffer().to_vec()).collect();
            prop_assert_eq!(pieces, expected.chunks(len).map(<[u8]>::to_vec).collect::<Vec<_>>());
        }

        #[test]
        fn chunks_cover_ranges(len in 1_u64..1 << 20, a in 0_u64..1 << 20, b in 0_u64..1 << 20) {
            let (start, end) = (a.min(b).min(len), a.max(b).min(len));
            let grid = Grid::new(12, len);
            let chunks = grid.covering(&(start..end));
            let span = grid.span(&chunks);
            prop_assert!(start == end || (span.start <= start && end <= span.end));
            prop_assert!(span.end - span.start < end - start + (2 << 12));
            prop_assert_eq!((0..grid.count()).map(|i| grid.chunk(i)).map(|c| c.end - c.start).sum::<u64>(), len);
        }
    }
}

//! Payloads: how an object lies in a channel (format in `docs/protocol.md`).
//!
//! A payload is a 64-byte prelude, a part table, the codec's metadata and the parts, each at a
//! multiple of 64 bytes. Writing makes a scatter list, so large parts are never copied to be
//! framed; reading slices the received buffer, so they are never copied to be unframed.

mod bytes;
mod checksum;
mod chunks;
mod compression;
mod envelope;
mod received;

use std::borrow::Cow;
use std::io::IoSlice;

use xxhash_rust::xxh3::xxh3_64;

use crate::buffer::{ALIGNMENT, Buffer};
use crate::error::{Error, ErrorKind, Result};

pub use bytes::Bytes;
pub(crate) use checksum::Checked;
pub use compression::Compression;
pub(crate) use envelope::{Envelope, Wrapping, enclose, is_envelope};
pub use received::{Head, Received};

/// First bytes of every payload; the line ends and the high bit show text-mode damage.
pub const MAGIC: [u8; 8] = *b"\x89PXS\r\n\x1a\n";
/// Version of the payload format written here.
pub const VERSION: u16 = 1;
/// Length of the prelude in bytes.
pub const PRELUDE: usize = 64;
/// Alignment of parts that lie in memory the channel handed out.
pub const PAGE: usize = 4096;

const MAX_PARTS: usize = 1 << 20;

/// Flag: the head has checksums of the parts.
const CHECKSUMS: u32 = 1;
/// Flag: this is an envelope, whose contents are a payload.
const ENVELOPE: u32 = 2;

/// Scatter list of the bytes of one object: what connectors are given to store.
#[derive(Debug, Clone, Default)]
pub struct Parts<'a> {
    slices: Vec<&'a [u8]>,
    len: usize,
}

impl<'a> Parts<'a> {
    /// Appends bytes; empty slices are left out.
    pub fn push(&mut self, bytes: &'a [u8]) {
        if !bytes.is_empty() {
            self.len += bytes.len();
            self.slices.push(bytes);
        }
    }

    /// Total length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The slices, in order, none empty.
    pub fn slices(&self) -> &[&'a [u8]] {
        &self.slices
    }

    /// The slices for a vectored write.
    pub fn io_slices(&self) -> Vec<IoSlice<'a>> {
        self.slices.iter().map(|slice| IoSlice::new(slice)).collect()
    }

    /// Copies all bytes to `target`.
    ///
    /// # Panics
    /// When the target is not exactly as long.
    pub fn copy_to(&self, target: &mut [u8]) {
        assert_eq!(target.len(), self.len, "target as long as the parts");
        let mut rest = target;
        for slice in &self.slices {
            let (here, after) = rest.split_at_mut(slice.len());
            here.copy_from_slice(slice);
            rest = after;
        }
    }

    /// All bytes in one private buffer.
    pub fn to_buffer(&self) -> Buffer {
        let mut buffer = Buffer::zeroed(self.len);
        if let Some(target) = buffer.as_mut() {
            self.copy_to(target);
        }
        buffer
    }
}

impl<'a> From<&'a [u8]> for Parts<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        let mut parts = Self::default();
        parts.push(bytes);
        parts
    }
}

/// One part of a payload, or a further piece of one.
#[derive(Debug, Clone)]
pub struct Part<'a> {
    /// The bytes, borrowed from the object where possible.
    pub bytes: Bytes<'a>,
    /// The bytes lie in memory the channel handed out: place them at a page boundary.
    pub allocated: bool,
    /// The bytes continue the part before, without a gap.
    pub continues: bool,
}

impl<'a> From<Bytes<'a>> for Part<'a> {
    fn from(bytes: Bytes<'a>) -> Self {
        Self { bytes, allocated: false, continues: false }
    }
}

/// An encoded object, ready to be framed.
#[derive(Debug, Clone)]
pub struct Payload<'a> {
    codec: u16,
    meta: Cow<'a, [u8]>,
    parts: Vec<Part<'a>>,
}

impl<'a> Payload<'a> {
    /// A payload of a codec, with that codec's metadata and no parts yet.
    pub fn new(codec: u16, meta: impl Into<Cow<'a, [u8]>>) -> Self {
        Self { codec, meta: meta.into(), parts: Vec::with_capacity(2) }
    }

    /// Adds a part.
    #[must_use]
    pub fn with_part(mut self, bytes: impl Into<Bytes<'a>>) -> Self {
        self.push(bytes.into().into());
        self
    }

    /// Adds a part, or a further piece of the last one.
    pub fn push(&mut self, mut part: Part<'a>) {
        part.continues &= !self.parts.is_empty();
        self.parts.push(part);
    }

    /// Adds a part that lies in several pieces; one without any is empty.
    pub fn push_pieces(&mut self, pieces: impl IntoIterator<Item = Bytes<'a>>) {
        let first = self.parts.len();
        for bytes in pieces {
            self.push(Part { continues: self.parts.len() > first, ..bytes.into() });
        }
        if self.parts.len() == first {
            self.push(Bytes::default().into());
        }
    }

    /// The same payload with bytes of its own.
    #[must_use]
    pub fn into_owned(self) -> Payload<'static> {
        let own = |part: Part<'a>| Part {
            bytes: part.bytes.into_owned(),
            allocated: part.allocated,
            continues: part.continues,
        };
        Payload {
            codec: self.codec,
            meta: Cow::Owned(self.meta.into_owned()),
            parts: self.parts.into_iter().map(own).collect(),
        }
    }

    /// Frames the payload: everything but the parts is made here.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`] for more than a million parts or metadata above 4 GB.
    pub fn frame(self) -> Result<Framed<'a>> {
        let layout = Layout::of(self.codec, &self.parts, &[], &self.meta, 0)?;
        Ok(Framed { codec: self.codec, meta: self.meta, parts: self.parts, layout })
    }
}

/// The head of a payload, and where it puts the parts.
#[derive(Debug)]
struct Layout {
    head: Vec<u8>,
    offsets: Vec<usize>,
    len: usize,
}

impl Layout {
    /// Lays out parts after a head that has `checksums` of chunks of that length, if any.
    fn of(
        codec: u16,
        parts: &[Part<'_>],
        checksums: &[u8],
        meta: &[u8],
        chunk_log2: u8,
    ) -> Result<Self> {
        let count = parts.iter().filter(|part| !part.continues).count();
        let head_len = PRELUDE + 16 * count + checksums.len() + meta.len();
        let (Ok(head_len_u32), true) = (u32::try_from(head_len), count <= MAX_PARTS) else {
            return Err(Error::new(ErrorKind::Encode, "frame a payload", "too many parts")
                .with("parts", count)
                .with_hint("store the pieces of the object under keys of their own"));
        };
        let mut end = head_len;
        let mut offsets = Vec::with_capacity(parts.len());
        let mut table: Vec<(usize, usize)> = Vec::with_capacity(count);
        // Aligned as much as any part needs from the start on: what follows does not depend on the
        // length of the head.
        let any_allocated = parts.iter().any(|part| part.allocated);
        for (index, part) in parts.iter().enumerate() {
            let len = part.bytes.len();
            let offset = match table.last_mut() {
                Some((_, part_len)) if part.continues => {
                    *part_len += len;
                    end
                }
                _ => {
                    let on_page =
                        part.allocated || (index == 0 && any_allocated && chunk_log2 != 0);
                    let offset = end.next_multiple_of(if on_page { PAGE } else { ALIGNMENT });
                    table.push((offset, len));
                    offset
                }
            };
            offsets.push(offset);
            end = offset + len;
        }
        let flags = if checksums.is_empty() { 0 } else { CHECKSUMS };
        let mut head = Vec::with_capacity(head_len);
        head.extend_from_slice(&MAGIC);
        head.extend_from_slice(&VERSION.to_le_bytes());
        head.extend_from_slice(&codec.to_le_bytes());
        head.extend_from_slice(&flags.to_le_bytes());
        head.extend_from_slice(&head_len_u32.to_le_bytes());
        // lossless: at most MAX_PARTS
        head.extend_from_slice(&(count as u32).to_le_bytes());
        head.extend_from_slice(&(end as u64).to_le_bytes());
        head.push(if checksums.is_empty() { 0 } else { chunk_log2 });
        head.resize(PRELUDE, 0);
        for (offset, len) in table {
            head.extend_from_slice(&(offset as u64).to_le_bytes());
            head.extend_from_slice(&(len as u64).to_le_bytes());
        }
        head.extend_from_slice(checksums);
        head.extend_from_slice(meta);
        finish_head(&mut head);
        Ok(Self { head, offsets, len: end })
    }

    /// The scatter list: head, padding and parts in order.
    fn parts<'a>(&'a self, parts: &'a [Part<'_>]) -> Parts<'a> {
        static ZEROS: [u8; PAGE] = [0; PAGE];
        let mut list = Parts::default();
        list.push(&self.head);
        for (part, offset) in parts.iter().zip(&self.offsets) {
            // The gap is shorter than the alignment, which is at most a page.
            list.push(&ZEROS[..offset - list.len()]);
            list.push(&part.bytes);
        }
        list
    }
}

/// Writes the checksum of a head into it; its place is zero so far.
fn finish_head(head: &mut [u8]) {
    let checksum = xxh3_64(head);
    head[56..64].copy_from_slice(&checksum.to_le_bytes());
}

/// A framed payload; [`parts`](Self::parts) is what a connector stores.
#[derive(Debug)]
pub struct Framed<'a> {
    codec: u16,
    meta: Cow<'a, [u8]>,
    parts: Vec<Part<'a>>,
    layout: Layout,
}

impl Framed<'_> {
    /// Total length in bytes.
    pub fn len(&self) -> usize {
        self.layout.len
    }

    /// Always false: a payload has at least its prelude.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The scatter list: head, padding and parts in order.
    pub fn parts(&self) -> Parts<'_> {
        self.layout.parts(&self.parts)
    }
}

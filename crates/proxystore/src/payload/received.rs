//! Reading payloads: a head, checked, and the parts it locates.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use super::checksum::{self, Checksums};
use super::chunks::Grid;
use super::{CHECKSUMS, ENVELOPE, MAGIC, MAX_PARTS, PRELUDE, VERSION};
use crate::buffer::Buffer;
use crate::error::{Error, ErrorKind, Result};

const READ: &str = "read a payload";

/// The head of a payload: which codec wrote it, its metadata, and where its parts are.
///
/// It can be read without the parts, which is what views do.
#[derive(Debug, Clone)]
pub struct Head {
    codec: u16,
    meta: Vec<u8>,
    parts: Vec<Range<u64>>,
    len: u64,
    checksums: Option<Checksums>,
}

impl Head {
    /// Length in bytes of the head of an object that starts with `prelude`: how much to read.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for bytes that are no payload; [`ErrorKind::Incompatible`] for a newer
    /// version.
    pub fn length(prelude: &[u8]) -> Result<usize> {
        if prelude.len() < PRELUDE || prelude[..8] != MAGIC {
            return Err(corrupt("these bytes are not a payload", prelude.len())
                .with_hint("they were not written by a store, or the channel altered them"));
        }
        let version = le_u16(&prelude[8..]);
        let flags = le_u32(&prelude[12..]);
        if version != VERSION || flags & !(CHECKSUMS | ENVELOPE) != 0 {
            return Err(Error::new(ErrorKind::Incompatible, READ, "the format is newer")
                .with("version", version)
                .with("flags", format_args!("{flags:#x}"))
                .with_hint("upgrade this program to the version that wrote the object"));
        }
        Ok(le_u32(&prelude[16..]) as usize)
    }

    /// Checks the head of an object, given at least the head itself.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for anything that is no payload, or is damaged in its head;
    /// [`ErrorKind::Incompatible`] for a newer version.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let corrupt = |cause: &'static str| corrupt(cause, bytes.len());
        let head_len = Self::length(bytes)?;
        let flags = le_u32(&bytes[12..]);
        if flags & ENVELOPE != 0 {
            return Err(corrupt("this is an envelope and not a payload"));
        }
        let codec = le_u16(&bytes[10..]);
        let count = le_u32(&bytes[20..]) as usize;
        let len = le_u64(&bytes[24..]);
        if head_len > bytes.len() || count > MAX_PARTS || PRELUDE + 16 * count > head_len {
            return Err(corrupt("the head is damaged or cut short"));
        }
        let mut head = bytes[..head_len].to_vec();
        head[56..64].fill(0);
        if xxh3_64(&head).to_le_bytes() != bytes[56..64] {
            return Err(corrupt("the head is damaged: its checksum does not match"));
        }
        let mut parts = Vec::with_capacity(count);
        let mut end = head_len as u64;
        if len < end {
            return Err(corrupt("the object is shorter than its head"));
        }
        for entry in bytes[PRELUDE..PRELUDE + 16 * count].chunks_exact(16) {
            let (offset, part_len) = (le_u64(entry), le_u64(&entry[8..]));
            let part_end = offset.checked_add(part_len).filter(|part_end| *part_end <= len);
            let Some(part_end) = part_end.filter(|_| offset >= end) else {
                return Err(corrupt("the part table points outside the object"));
            };
            parts.push(offset..part_end);
            end = part_end;
        }
        let mut rest = &bytes[PRELUDE + 16 * count..head_len];
        let mut checksums = None;
        if flags & CHECKSUMS != 0 {
            let start = parts.first().map_or(len, |part| part.start);
            let grid = Grid::read(bytes[32], len - start)?;
            let table_len =
                usize::try_from(grid.count()).ok().and_then(|n| n.checked_mul(checksum::SIZE));
            let Some((table, meta)) = table_len.and_then(|len| rest.split_at_checked(len)) else {
                return Err(corrupt("the head is damaged or cut short"));
            };
            rest = meta;
            let table = table.chunks_exact(checksum::SIZE).map(le_u64).collect();
            checksums = Some(Checksums { grid, start, table });
        }
        Ok(Self { codec, meta: rest.to_vec(), parts, len, checksums })
    }

    /// What has to be read to check the bytes of `range`: as much, without checksums.
    pub(crate) fn checkable(&self, range: &Range<u64>) -> Range<u64> {
        let Some(Checksums { grid, start, .. }) = &self.checksums else { return range.clone() };
        if range.start < *start || range.is_empty() {
            return range.clone();
        }
        let span = grid.span(&grid.covering(&(range.start - start..range.end - start)));
        span.start + start..span.end + start
    }

    /// Checks bytes that lie at `range`, which [`checkable`](Self::checkable) gave.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] naming the place of the damage.
    pub(crate) fn check(&self, range: &Range<u64>, bytes: &[u8]) -> Result<()> {
        match &self.checksums {
            Some(checksums) if range.start >= checksums.start && !range.is_empty() => {
                let chunks = checksums
                    .grid
                    .covering(&(range.start - checksums.start..range.end - checksums.start));
                checksums.check(chunks.start, bytes)
            }
            _ => Ok(()),
        }
    }

    /// Number of the codec that wrote the payload.
    pub fn codec(&self) -> u16 {
        self.codec
    }

    /// The codec's metadata.
    pub fn meta(&self) -> &[u8] {
        &self.meta
    }

    /// Where each part lies, in bytes from the start of the payload.
    pub fn parts(&self) -> &[Range<u64>] {
        &self.parts
    }

    /// Total length of the payload in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Always false: a payload has at least its prelude.
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// A received payload: the head, checked, and the parts as slices of the received buffer.
#[derive(Debug, Clone)]
pub struct Received {
    head: Head,
    bytes: Buffer,
}

impl Received {
    /// Checks a head and locates the parts; nothing large is copied.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for anything that is no payload, is damaged in its head or cut
    /// short; [`ErrorKind::Incompatible`] for a newer version.
    pub fn parse(bytes: Buffer) -> Result<Self> {
        let head = Head::parse(&bytes)?;
        if head.len != bytes.len() as u64 {
            return Err(corrupt("the object is cut short or has bytes appended", bytes.len())
                .with("expected bytes", head.len)
                .with_hint("the writer died or the disk filled up; store the object again"));
        }
        let body =
            head.checkable(&(head.parts.first().map_or(head.len, |part| part.start)..head.len));
        head.check(&body, &bytes[body.start as usize..])?; // lossless: within the buffer
        Ok(Self { head, bytes })
    }

    /// A payload whose parts were read one by one, each to its place in `bytes`.
    pub(crate) fn of_parts(head: Head, bytes: Buffer) -> Self {
        Self { head, bytes }
    }

    /// The head.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Number of the codec that wrote it.
    pub fn codec(&self) -> u16 {
        self.head.codec
    }

    /// The codec's metadata.
    pub fn meta(&self) -> &[u8] {
        &self.head.meta
    }

    /// How many parts there are.
    pub fn part_count(&self) -> usize {
        self.head.parts.len()
    }

    /// A part, sharing the received memory; `None` past the last.
    pub fn part(&self, index: usize) -> Option<Buffer> {
        // lossless: the parts lie within the buffer
        let range = self.head.parts.get(index)?;
        Some(self.bytes.slice(range.start as usize..range.end as usize))
    }

    /// The bytes as they were received.
    pub fn into_bytes(self) -> Buffer {
        self.bytes
    }

    /// Total length in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Always false: a payload has at least its prelude.
    pub fn is_empty(&self) -> bool {
        false
    }
}

fn corrupt(cause: &'static str, received: usize) -> Error {
    Error::new(ErrorKind::Corrupt, READ, cause).with("received bytes", received)
}

pub(super) fn le_u16(bytes: &[u8]) -> u16 {
    u16::from_le_bytes([bytes[0], bytes[1]])
}

pub(super) fn le_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

pub(super) fn le_u64(bytes: &[u8]) -> u64 {
    u64::from(le_u32(bytes)) | u64::from(le_u32(&bytes[4..])) << 32
}

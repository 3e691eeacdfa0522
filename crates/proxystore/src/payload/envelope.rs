//! Envelopes: a payload whose bytes are compressed or sealed, chunk by chunk (format in
//! `docs/protocol.md`).

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use super::chunks::{CHUNK_LOG2, Grid};
use super::compression::{Compressor, decompress};
use super::received::{le_u32, le_u64};
use super::{Compression, ENVELOPE, Head, MAGIC, PRELUDE, Parts, VERSION, finish_head};
use crate::buffer::Buffer;
use crate::error::{Error, ErrorKind, Result};
use crate::key::random;
use crate::seal::{Cipher, Seal, TAG, sha256, tampered};

const READ: &str = "read an envelope";
const SALT: usize = 32;
const DIGEST: usize = 32;
const LENGTH: usize = 4;
/// How much of the prelude a seal protects: all but the checksum.
const CONTEXT: usize = 56;

/// What to do to the chunks of a payload.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wrapping<'a> {
    pub(crate) compression: Option<Compression>,
    pub(crate) seal: Option<&'a Seal>,
    /// Make a digest that pins the contents.
    pub(crate) digest: bool,
}

/// Whether bytes start like an envelope.
pub(crate) fn is_envelope(bytes: &[u8]) -> bool {
    bytes.len() >= PRELUDE && bytes[..8] == MAGIC && le_u32(&bytes[12..]) & ENVELOPE != 0
}

/// Puts a payload into an envelope; also returns the digest, if one is wished.
///
/// # Errors
/// [`ErrorKind::Encode`] for payloads that are too large, [`ErrorKind::Unsupported`] for what this
/// build has not.
pub(crate) fn enclose(
    payload: &Parts<'_>,
    how: Wrapping<'_>,
) -> Result<(Buffer, Option<[u8; 32]>)> {
    let grid = Grid::new(CHUNK_LOG2, payload.len() as u64);
    let count = grid.count() as usize; // lossless: of bytes in memory
    let shape = Shape {
        lengths: how.compression.is_some(),
        sealed: how.seal.is_some(),
        digests: how.digest,
    };
    let head_len = shape.head_len(count);
    let too_large = |_| {
        Error::new(ErrorKind::Encode, "enclose a payload", "it is too large")
            .with("bytes", payload.len())
            .with_hint("store the pieces of the object under keys of their own")
    };
    let mut head = vec![0; PRELUDE];
    head[..8].copy_from_slice(&MAGIC);
    head[8..10].copy_from_slice(&VERSION.to_le_bytes());
    head[12..16].copy_from_slice(&ENVELOPE.to_le_bytes());
    head[16..20].copy_from_slice(&u32::try_from(head_len).map_err(too_large)?.to_le_bytes());
    head[20..24].copy_from_slice(&u32::try_from(count).map_err(too_large)?.to_le_bytes());
    head[32] = grid.log2();
    head[33] = how.compression.map_or(0, Compression::number);
    head[34] = u8::from(shape.sealed);
    head[35] = u8::from(shape.digests);
    head[40..48].copy_from_slice(&grid.len().to_le_bytes());

    let compressed: Vec<Vec<u8>> = match how.compression {
        Some(compression) => compress(payload, compression)?,
        None => Vec::new(),
    };
    let chunks: Vec<Parts<'_>> = match how.compression {
        Some(_) => compressed.iter().map(|chunk| Parts::from(&chunk[..])).collect(),
        None => payload.pieces(0, 1 << CHUNK_LOG2).collect(),
    };
    let tag = if shape.sealed { TAG } else { 0 };
    let total = head_len + chunks.iter().map(Parts::len).sum::<usize>() + count * tag;
    head[24..32].copy_from_slice(&(total as u64).to_le_bytes());
    let mut cipher = None;
    if let Some(seal) = how.seal {
        let salt: [u8; SALT] = random()?;
        cipher = Some(Cipher::new(seal, &salt, &head[..CONTEXT], count as u64)?);
        head.extend_from_slice(&salt);
    }
    if shape.lengths {
        for chunk in &chunks {
            head.extend_from_slice(&(chunk.len() as u32).to_le_bytes()); // lossless: at most a chunk
        }
    }
    let mut buffer = Buffer::zeroed(total);
    let target = buffer.as_mut().unwrap_or_default(); // new, so it is ours alone
    let (head_target, mut rest) = target.split_at_mut(head_len);
    for (index, chunk) in (0..).zip(&chunks) {
        let (stored, after) = rest.split_at_mut(chunk.len() + tag);
        rest = after;
        let (text, end) = stored.split_at_mut(chunk.len());
        chunk.copy_to(text);
        if let Some(cipher) = &cipher {
            end.copy_from_slice(&cipher.close(index, text)?);
        }
        if shape.digests {
            head.extend_from_slice(&sha256(stored));
        }
    }
    finish_head(&mut head);
    head_target.copy_from_slice(&head);
    Ok((buffer, shape.digests.then(|| sha256(&head))))
}

fn compress(payload: &Parts<'_>, how: Compression) -> Result<Vec<Vec<u8>>> {
    let mut compressor = Compressor::new(how)?;
    let compress = |piece: Parts<'_>| {
        let joined;
        let chunk: &[u8] = if let [whole] = piece.slices() {
            whole
        } else {
            joined = piece.to_buffer();
            &joined
        };
        Ok(compressor.compress(chunk)?.unwrap_or_else(|| chunk.to_vec()))
    };
    payload.pieces(0, 1 << CHUNK_LOG2).map(compress).collect()
}

/// Which tables the head of an envelope has.
#[derive(Debug, Clone, Copy)]
struct Shape {
    lengths: bool,
    sealed: bool,
    digests: bool,
}

impl Shape {
    fn head_len(self, count: usize) -> usize {
        let per_chunk =
            if self.lengths { LENGTH } else { 0 } + if self.digests { DIGEST } else { 0 };
        PRELUDE + if self.sealed { SALT } else { 0 } + count * per_chunk
    }
}

/// The head of an envelope: what it takes to open its chunks.
#[derive(Debug)]
pub(crate) struct Envelope {
    grid: Grid,
    compression: Option<Compression>,
    cipher: Option<Cipher>,
    head_len: u64,
    /// Where each chunk starts in the envelope, and where the last ends, unless all are as long as
    /// what is in them: then this is empty, whatever number of chunks the head speaks of.
    offsets: Vec<u64>,
    digests: Option<Vec<u8>>,
}

impl Envelope {
    /// Checks the head of an envelope, given at least the head itself; `seal` is that of its key.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for a damaged head, [`ErrorKind::Tampered`] when it is not what the
    /// seal asks for, [`ErrorKind::Sealed`] when a seal is missing, [`ErrorKind::Incompatible`] for a
    /// newer version.
    pub(crate) fn parse(bytes: &[u8], seal: Option<&Seal>) -> Result<Self> {
        let head_len = Head::length(bytes)?;
        let count = le_u32(&bytes[20..]) as usize;
        let total = le_u64(&bytes[24..]);
        let shape =
            Shape { lengths: bytes[33] != 0, sealed: bytes[34] != 0, digests: bytes[35] != 0 };
        let compression = Compression::of_number(bytes[33]);
        if compression.is_some() != shape.lengths || bytes[34] > 1 || bytes[35] > 1 {
            return Err(Error::new(ErrorKind::Incompatible, READ, "the format is newer")
                .with("compression", bytes[33])
                .with("seal", bytes[34])
                .with_hint("upgrade this program to the version that wrote the object"));
        }
        if head_len > bytes.len() || head_len != shape.head_len(count) {
            return Err(corrupt("the head is damaged or cut short"));
        }
        let head = &bytes[..head_len];
        let mut zeroed = head.to_vec();
        zeroed[56..64].fill(0);
        if xxh3_64(&zeroed).to_le_bytes() != head[56..64] {
            return Err(corrupt("the head is damaged: its checksum does not match"));
        }
        let grid = Grid::read(head[32], le_u64(&head[40..]))?;
        if grid.count() != count as u64 {
            return Err(corrupt("the head has another number of chunks than the object"));
        }
        let cipher = match (shape.sealed, seal) {
            (true, None) => return Err(missing_secret()),
            (false, Some(_)) => return Err(tampered("it is not sealed, though its key says so")),
            (true, Some(seal)) => {
                let salt = &head[PRELUDE..PRELUDE + SALT];
                Some(Cipher::new(seal, salt, &head[..CONTEXT], count as u64)?)
            }
            (false, None) => None,
        };
        if let Some(expected) = seal.and_then(Seal::digest)
            && !(shape.digests && sha256(head) == *expected)
        {
            return Err(tampered("it is not the object that its reference was made of"));
        }
        let (lengths, digests) = head[PRELUDE + if shape.sealed { SALT } else { 0 }..]
            .split_at(if shape.lengths { count * LENGTH } else { 0 });
        let tag = if shape.sealed { TAG as u64 } else { 0 };
        let mut end = head_len as u64;
        let mut offsets = Vec::new();
        if shape.lengths {
            offsets.push(end);
        } else {
            end += grid.len() + count as u64 * tag; // no overflow: of at most 2^32 chunks
        }
        for (index, len) in (0..).zip(lengths.chunks_exact(LENGTH)) {
            let (len, plain) = (u64::from(le_u32(len)), grid.chunk(index));
            let plain = plain.end - plain.start;
            // Neither format packs more than this into a byte, whatever is claimed.
            if len > plain || plain > len << 15 {
                return Err(corrupt("a chunk is longer or shorter than it can be"));
            }
            end += len + tag;
            offsets.push(end);
        }
        if end != total {
            return Err(corrupt("its chunks are not as long as it is"));
        }
        let digests = shape.digests.then(|| digests.to_vec());
        let head_len = head_len as u64;
        Ok(Self { grid, compression, cipher, head_len, offsets, digests })
    }

    /// Length in bytes of the payload inside.
    pub(crate) fn len(&self) -> u64 {
        self.grid.len()
    }

    /// Length in bytes of the envelope.
    fn stored_len(&self) -> u64 {
        self.start(self.grid.count())
    }

    /// Where a chunk starts in the envelope; of the one past the last, where that ends.
    fn start(&self, chunk: u64) -> u64 {
        if self.compression.is_some() {
            // lossless: chunk numbers come from the grid, which has as many as there are offsets
            return self.offsets[chunk as usize];
        }
        let tag = if self.cipher.is_some() { TAG as u64 } else { 0 };
        self.head_len + self.grid.chunk(chunk).start.min(self.grid.len()) + chunk * tag
    }

    /// Which chunks have bytes of a range of the payload.
    pub(crate) fn chunks(&self, range: &Range<u64>) -> Range<u64> {
        self.grid.covering(range)
    }

    /// Where chunks in a row lie in the envelope.
    pub(crate) fn stored(&self, chunks: &Range<u64>) -> Range<u64> {
        self.start(chunks.start)..self.start(chunks.end)
    }

    /// Opens chunks in a row, of which `stored` are the bytes; also returns where in the payload the
    /// opened bytes start.
    ///
    /// # Errors
    /// [`ErrorKind::Tampered`] for sealed chunks that were altered, [`ErrorKind::Corrupt`] for damage.
    pub(crate) fn open(&self, chunks: &Range<u64>, stored: &[u8]) -> Result<(u64, Buffer)> {
        let span = self.grid.span(chunks);
        let mut buffer = Buffer::try_zeroed(span.end - span.start)?;
        let mut target = buffer.as_mut().unwrap_or_default(); // new, so it is ours alone
        let base = self.stored(chunks).start;
        for index in chunks.clone() {
            let place = self.stored(&(index..index + 1));
            let stored = &stored[(place.start - base) as usize..(place.end - base) as usize];
            let plain = self.grid.chunk(index);
            let (chunk, rest) = target.split_at_mut((plain.end - plain.start) as usize);
            self.open_chunk(index, stored, chunk)?;
            target = rest;
        }
        Ok((span.start, buffer))
    }

    fn open_chunk(&self, index: u64, stored: &[u8], target: &mut [u8]) -> Result<()> {
        self.check_digest(index, stored)?;
        let Some(cipher) = &self.cipher else {
            return self.decompress(stored, target);
        };
        let (text, tag) = stored.split_at(stored.len() - TAG);
        if text.len() == target.len() {
            target.copy_from_slice(text);
            return cipher.open(index, target, 0, tag);
        }
        let mut opened = text.to_vec();
        cipher.open(index, &mut opened, 0, tag)?;
        self.decompress(&opened, target)
    }

    /// Opens all chunks of a whole envelope in its own memory, at the start of which the payload is
    /// then; of no use for compressed ones.
    fn open_in_place(&self, cipher: &Cipher, envelope: &mut [u8]) -> Result<()> {
        for index in 0..self.grid.count() {
            // lossless: within memory
            let (from, end) = (self.start(index) as usize, self.start(index + 1) as usize);
            let to = self.grid.chunk(index).start as usize;
            self.check_digest(index, &envelope[from..end])?;
            let (chunk, tag) = envelope[to..end].split_at_mut(end - TAG - to);
            cipher.open(index, chunk, from - to, tag)?;
        }
        Ok(())
    }

    fn check_digest(&self, index: u64, stored: &[u8]) -> Result<()> {
        let Some(digests) = &self.digests else { return Ok(()) };
        let expected = digests.chunks_exact(DIGEST).nth(index as usize); // lossless: a chunk
        if expected != Some(&sha256(stored)[..]) {
            return Err(tampered("a chunk is not the one that its producer made"));
        }
        Ok(())
    }

    fn decompress(&self, chunk: &[u8], target: &mut [u8]) -> Result<()> {
        match self.compression {
            Some(compression) if chunk.len() != target.len() => {
                decompress(compression, chunk, target)
            }
            _ => {
                target.copy_from_slice(chunk); // one that would not become shorter
                Ok(())
            }
        }
    }

    /// The payload in a whole envelope.
    ///
    /// # Errors
    /// As [`parse`](Self::parse) and [`open`](Self::open).
    pub(crate) fn open_all(mut bytes: Buffer, seal: Option<&Seal>) -> Result<Buffer> {
        let envelope = Self::parse(&bytes, seal)?;
        if envelope.stored_len() != bytes.len() as u64 {
            let cause = "the object is cut short or has bytes appended";
            return Err(match seal {
                Some(_) => tampered(cause),
                None => corrupt(cause),
            }
            .with("received bytes", bytes.len())
            .with("expected bytes", envelope.stored_len()));
        }
        if let (None, Some(cipher)) = (envelope.compression, &envelope.cipher)
            && let Some(target) = bytes.as_mut()
        {
            envelope.open_in_place(cipher, target)?;
            return Ok(bytes.slice(0..envelope.len() as usize)); // lossless: within memory
        }
        let all = 0..envelope.grid.count();
        let stored = envelope.stored(&all);
        Ok(envelope.open(&all, &bytes[stored.start as usize..])?.1)
    }
}

fn corrupt(cause: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, READ, cause)
        .with_hint("store the object again, and check the channel's disk or memory")
}

fn missing_secret() -> Error {
    Error::new(ErrorKind::Sealed, "open a sealed object", "its key came without the secret")
        .with_hint("get the proxy itself from its owner, or a text made with its secret")
}

#[cfg(all(test, feature = "seal"))]
mod tests {
    use super::*;
    use crate::payload::Payload;

    #[test]
    fn heads_are_as_documented() {
        let framed = Payload::new(1, &[][..]).with_part(&b"hello"[..]).frame().unwrap();
        let seal = Seal::new([1; 32], None);
        let how = Wrapping { seal: Some(&seal), digest: true, ..Wrapping::default() };
        let (buffer, digest) = enclose(&framed.parts(), how).unwrap();
        let expected = [
            &b"\x89PXS\r\n\x1a\n\x01\0\0\0\x02\0\0\0"[..],
            b"\x80\0\0\0\x01\0\0\0\x15\x01\0\0\0\0\0\0", // 128 of head, 1 chunk, 277 in all
            b"\x12\0\x01\x01\0\0\0\0\x85\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", // 133 of payload
        ]
        .concat();
        assert_eq!(&buffer[..CONTEXT], expected);
        assert_eq!(buffer.len(), 128 + framed.len() + TAG);
        assert_eq!(buffer[96..128], sha256(&buffer[128..]));
        assert_eq!(digest, Some(sha256(&buffer[..128])));
        let opened = Envelope::open_all(buffer, Some(&seal)).unwrap();
        assert_eq!(opened[..], framed.parts().to_buffer()[..]);
    }

    #[test]
    fn envelopes_open_in_their_own_memory_or_beside_it() {
        let bytes: Vec<u8> = (0_u32..200_000).flat_map(u32::to_le_bytes).collect();
        let seal = Seal::new([1; 32], None);
        for digest in [false, true] {
            let how = Wrapping { seal: Some(&seal), digest, ..Wrapping::default() };
            let (envelope, _) = enclose(&Parts::from(&bytes[..]), how).unwrap();
            let shared = envelope.clone(); // while there are two, nobody writes
            assert_eq!(Envelope::open_all(envelope, Some(&seal)).unwrap()[..], bytes);
            let place = shared.as_ptr().cast_const();
            let mut altered = Buffer::copy_of(&shared);
            let opened = Envelope::open_all(shared, Some(&seal)).unwrap();
            assert_eq!(opened[..], bytes);
            assert_eq!(opened.as_ptr().cast_const(), place);
            altered.as_mut().unwrap()[600_000] ^= 1;
            let error = Envelope::open_all(altered, Some(&seal)).unwrap_err();
            assert_eq!(error.kind(), crate::error::ErrorKind::Tampered);
        }
    }

    // As other libraries compute it from the description of the format.
    #[test]
    fn the_cipher_stays_the_same() {
        let salt: Vec<u8> = (0..32).collect();
        let cipher = Cipher::new(&Seal::new([1; 32], None), &salt, b"context", 2).unwrap();
        let mut chunk = *b"hello";
        let tag = cipher.close(0, &mut chunk).unwrap();
        assert_eq!(chunk, [84, 143, 209, 61, 176]);
        assert_eq!(tag, *b"\xbb\x4a\x74\x04\x96\x38\x17\xd6\x7e\xfa\xdc\xff\x77\xdd\x79\x54");
    }
}

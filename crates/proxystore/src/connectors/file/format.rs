//! The trailer that ends every object's file (format in `docs/protocol-file.md`).

use xxhash_rust::xxh3::xxh3_64;

use crate::key::Key;

/// Length of the trailer in bytes.
pub(super) const LEN: usize = 32;

const MAGIC: [u8; 6] = *b"\x89PXF\r\n";
const VERSION: u16 = 1;

/// What a file says about the object that lies before its trailer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trailer {
    /// Length of the object in bytes.
    pub(super) len: u64,
    /// Which of the objects stored under the id in turn this is.
    pub(super) generation: u64,
}

/// Why a file is no object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It does not end with a trailer, or with that of a file of another length.
    Cut,
    /// It was written by a newer version.
    Newer(u16),
}

impl Trailer {
    /// Whether it is this object that the key means.
    pub(super) fn is_of(&self, key: &Key) -> bool {
        [0, self.generation].contains(&key.generation())
    }

    pub(super) fn to_bytes(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..6].copy_from_slice(&MAGIC);
        bytes[6..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.len.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.generation.to_le_bytes());
        let checksum = xxh3_64(&bytes[..24]);
        bytes[24..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The trailer in the last bytes of a file that is `file_len` bytes long.
    pub(super) fn parse(bytes: &[u8; LEN], file_len: u64) -> Result<Self, Fault> {
        let number = |at: usize| {
            let mut le = [0; 8];
            le.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(le)
        };
        if bytes[..6] != MAGIC || xxh3_64(&bytes[..24]) != number(24) {
            return Err(Fault::Cut);
        }
        let version = u16::from_le_bytes([bytes[6], bytes[7]]);
        if version != VERSION {
            return Err(Fault::Newer(version));
        }
        let (len, generation) = (number(8), number(16));
        if len.checked_add(LEN as u64) != Some(file_len) {
            return Err(Fault::Cut);
        }
        Ok(Self { len, generation })
    }
}

/// Reads what may be the end of any file; for fuzzing.
#[cfg(feature = "testkit")]
pub(crate) fn fuzz(data: &[u8]) {
    let Some(end) = data.last_chunk::<LEN>() else { return };
    let mut mended = *end;
    let checksum = xxh3_64(&end[..24]).to_le_bytes();
    mended[24..].copy_from_slice(&checksum);
    let mut said = [0; 8];
    said.copy_from_slice(&end[8..16]);
    for bytes in [*end, mended] {
        for file_len in [data.len() as u64, u64::from_le_bytes(said).saturating_add(LEN as u64)] {
            if let Ok(trailer) = Trailer::parse(&bytes, file_len) {
                assert_eq!(trailer.to_bytes(), bytes);
                assert_eq!(trailer.len + LEN as u64, file_len);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bytes_of_a_trailer_stay_as_they_are() {
        let bytes = Trailer { len: 1000, generation: 7 }.to_bytes();
        let expected = *b"\x89PXF\r\n\x01\0\xe8\x03\0\0\0\0\0\0\
            \x07\0\0\0\0\0\0\0\xb6\xfd\x3d\x7f\x5a\x49\x34\x49";
        assert_eq!(bytes, expected);
    }

    proptest! {
        #[test]
        fn every_trailer_survives_the_trip(len in 0..u64::MAX - 32, generation: u64) {
            let trailer = Trailer { len, generation };
            prop_assert_eq!(Trailer::parse(&trailer.to_bytes(), len + 32), Ok(trailer));
            prop_assert_eq!(Trailer::parse(&trailer.to_bytes(), len + 31), Err(Fault::Cut));
        }

        #[test]
        fn every_flipped_bit_is_noticed(len in 0..1_u64 << 40, bit in 0..256_usize) {
            let mut bytes = Trailer { len, generation: 1 }.to_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Trailer::parse(&bytes, len + 32), Err(Fault::Cut));
        }
    }
}

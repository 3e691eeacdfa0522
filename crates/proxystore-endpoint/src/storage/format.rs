//! The head of an object's file on disk; id and object follow it.
//!
//! | at | bytes | |
//! | --- | --- | --- |
//! | 0 | 6 | `89 50 58 45 0d 0a` |
//! | 6 | 2 | version, 1 |
//! | 8 | 8 | length of the object |
//! | 16 | 8 | generation |
//! | 24 | 8 | when it expires, milliseconds since 1970; 0 for never |
//! | 32 | 2 | length of the id |
//! | 34 | 14 | 0 |
//! | 48 | 16 | BLAKE3 of the 48 bytes before and the id, cut |
//!
//! Numbers are little endian.

use proxystore::key::check_id;

/// The length of a head, without the id.
pub(super) const HEAD: usize = 64;
/// The longest head and id.
pub(super) const LONGEST: usize = HEAD + 200;

const MAGIC: [u8; 6] = *b"\x89PXE\r\n";
const VERSION: u16 = 1;
const CHECKED: usize = 48;

/// What a file says of its object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) id: Box<str>,
    pub(super) size: u64,
    pub(super) generation: u64,
    /// Milliseconds since 1970; 0 for never.
    pub(super) ends: u64,
}

impl Head {
    /// How many bytes lie before the object.
    pub(super) fn len(&self) -> u64 {
        (HEAD + self.id.len()) as u64
    }

    /// Head and id.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEAD];
        bytes[..6].copy_from_slice(&MAGIC);
        bytes[6..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.size.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.generation.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.ends.to_le_bytes());
        bytes[32..34].copy_from_slice(&(self.id.len() as u16).to_le_bytes());
        let checksum = checksum(&bytes[..CHECKED], self.id.as_bytes());
        bytes[CHECKED..HEAD].copy_from_slice(&checksum);
        bytes.extend_from_slice(self.id.as_bytes());
        bytes
    }

    /// The head in the first bytes of a file that is `file_len` bytes long, or what is wrong with it.
    pub(super) fn decode(bytes: &[u8], file_len: u64) -> Result<Self, &'static str> {
        const DAMAGED: &str = "its head is damaged";
        let head = bytes.first_chunk::<HEAD>().ok_or("it is cut short")?;
        let number = |at: usize| {
            let mut le = [0; 8];
            le.copy_from_slice(&head[at..at + 8]);
            u64::from_le_bytes(le)
        };
        if head[..6] != MAGIC {
            return Err("it is of another kind");
        }
        if u16::from_le_bytes([head[6], head[7]]) != VERSION {
            return Err("it is of another version");
        }
        let id_len = usize::from(u16::from_le_bytes([head[32], head[33]]));
        let id = bytes.get(HEAD..HEAD + id_len).ok_or(DAMAGED)?;
        if checksum(&head[..CHECKED], id) != head[CHECKED..] {
            return Err(DAMAGED);
        }
        let id = std::str::from_utf8(id).ok().filter(|id| check_id(id).is_ok()).ok_or(DAMAGED)?;
        let head =
            Self { id: id.into(), size: number(8), generation: number(16), ends: number(24) };
        if head.size.checked_add(head.len()) != Some(file_len) {
            return Err("it is not as long as it should be");
        }
        Ok(head)
    }
}

fn checksum(head: &[u8], id: &[u8]) -> [u8; HEAD - CHECKED] {
    let hash = blake3::Hasher::new().update(head).update(id).finalize();
    *hash.as_bytes().first_chunk().unwrap_or(&[0; HEAD - CHECKED])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn heads_read_as_they_were_written(
            id in "[a-z0-9][a-z0-9._-]{0,199}", size in 0..1_u64 << 60, generation: u64, ends: u64,
        ) {
            let head = Head { id: id.into(), size, generation, ends };
            let bytes = head.encode();
            prop_assert_eq!(bytes.len() as u64, head.len());
            prop_assert_eq!(Head::decode(&bytes, head.len() + size), Ok(head.clone()));
            prop_assert!(Head::decode(&bytes, head.len() + size + 1).is_err());
            prop_assert!(Head::decode(&bytes[..bytes.len() - 1], head.len() + size).is_err());
        }

        #[test]
        fn every_flipped_bit_is_noticed(bit in 0..8 * 68_usize) {
            let head = Head { id: "a.bc".into(), size: 7, generation: 1, ends: 5 };
            let mut bytes = head.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Head::decode(&bytes, head.len() + 7).is_err());
        }

        #[test]
        fn no_bytes_are_too_much(bytes in prop::collection::vec(any::<u8>(), 0..300), len: u64) {
            let _ = Head::decode(&bytes, len);
        }
    }
}

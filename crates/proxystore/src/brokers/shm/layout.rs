//! How the file of a topic begins, and what it is called.
//!
//! All numbers are little-endian. Page 0 holds the header: magic (8 bytes), version (8), capacity
//! of the ring in bytes (8), head (8), flags (8: 1 subscribers wait, 2 publishers wait), zeros up to
//! 64; then 62 places of 32 bytes for groups: the XXH3-128 hash of the name (16), cursor (8), 1 where
//! the place is taken (8). From page 1 on lies the ring: records of 8 bytes for the length of a
//! message, the message, and zeros or anything up to a multiple of 8. Head and cursors count bytes;
//! they lie in the ring at their remainder by the capacity.

use xxhash_rust::xxh3::xxh3_128;

use crate::connectors::percent;

/// Where the ring begins in the file.
pub(super) const RING_AT: u64 = 4096;
/// How many groups a topic can have.
pub(super) const GROUPS: usize = 62;
/// What precedes every message.
pub(super) const LENGTH: u64 = 8;

const SIZE: usize = PREFIX + GROUPS * PLACE;
const PREFIX: usize = 64;
const PLACE: usize = 32;
const MAGIC: u64 = u64::from_le_bytes(*b"\x89PXB\r\n\x1a\n");
const VERSION: u64 = 1;
const SUBSCRIBERS_WAIT: u64 = 1;
const PUBLISHERS_WAIT: u64 = 2;
const SMALLEST: u64 = 4096;
const LARGEST: u64 = 1 << 32;
/// Beyond any head, so that nothing overflows.
const END: u64 = 1 << 62;

/// What the processes of a topic agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// Size of the ring.
    pub(super) capacity: u64,
    /// Where the next record goes.
    pub(super) head: u64,
    pub(super) subscribers_wait: bool,
    pub(super) publishers_wait: bool,
    pub(super) groups: [Option<Group>; GROUPS],
}

/// Subscribers that share the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) id: u128,
    /// Where its next record is.
    pub(super) cursor: u64,
}

impl Header {
    pub(super) const SIZE: usize = SIZE;

    /// Of a topic that has neither messages nor groups.
    pub(super) fn new(capacity: u64) -> Self {
        let capacity = capacity.clamp(SMALLEST, LARGEST).next_multiple_of(8);
        let (subscribers_wait, publishers_wait) = (false, false);
        Self { capacity, head: 0, subscribers_wait, publishers_wait, groups: [None; GROUPS] }
    }

    pub(super) fn encode(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        let flags = u64::from(self.subscribers_wait) * SUBSCRIBERS_WAIT
            + u64::from(self.publishers_wait) * PUBLISHERS_WAIT;
        let words = [MAGIC, VERSION, self.capacity, self.head, flags];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        for (place, group) in bytes[PREFIX..].chunks_exact_mut(PLACE).zip(&self.groups) {
            if let Some(Group { id, cursor }) = group {
                place[..16].copy_from_slice(&id.to_le_bytes());
                place[16..24].copy_from_slice(&cursor.to_le_bytes());
                place[24] = 1;
            }
        }
        bytes
    }

    /// `None` for what no process of this version writes.
    pub(super) fn decode(bytes: &[u8; SIZE]) -> Option<Self> {
        let mut words = bytes.chunks_exact(8).map(word);
        let mut next = || words.next().unwrap_or_default();
        let (magic, version, capacity, head, flags) = (next(), next(), next(), next(), next());
        let mut header = Self {
            head,
            subscribers_wait: flags & SUBSCRIBERS_WAIT != 0,
            publishers_wait: flags & PUBLISHERS_WAIT != 0,
            ..Self::new(capacity)
        };
        if magic != MAGIC || version != VERSION || header.capacity != capacity {
            return None;
        }
        for (place, group) in bytes[PREFIX..].chunks_exact(PLACE).zip(&mut header.groups) {
            let id = u128::from_le_bytes(*place.first_chunk()?);
            let taken = Group { id, cursor: word(&place[16..24]) };
            match word(&place[24..]) {
                0 => {}
                1 if taken.cursor <= head => *group = Some(taken),
                _ => return None,
            }
        }
        let is_whole = head < END && head.is_multiple_of(8) && header.used() <= capacity;
        is_whole.then_some(header)
    }

    /// Bytes of the ring that somebody still has to get.
    pub(super) fn used(&self) -> u64 {
        let oldest = self.groups.iter().flatten().map(|group| group.cursor).min();
        // Without groups all of it is for the first to come.
        self.head - oldest.unwrap_or(0)
    }

    /// The largest message.
    pub(super) fn largest(&self) -> u64 {
        self.capacity / 2 - LENGTH
    }

    /// Starts again at the beginning of the ring if all groups have all of it, so that a topic has no
    /// more memory than it needs; says where it was.
    pub(super) fn rewind(&mut self) -> Option<u64> {
        if self.groups.iter().all(Option::is_none) || self.used() > 0 {
            return None;
        }
        self.groups.iter_mut().flatten().for_each(|group| group.cursor = 0);
        Some(std::mem::take(&mut self.head))
    }

    /// The place of a group, made if there is none: the first begins with the oldest message, later
    /// ones with the next. `None` when all places are taken.
    pub(super) fn join(&mut self, id: u128) -> Option<usize> {
        let of_id = |group: &Option<Group>| group.is_some_and(|group| group.id == id);
        if let Some(place) = self.groups.iter().position(of_id) {
            return Some(place);
        }
        let is_first = self.groups.iter().all(Option::is_none);
        let place = self.groups.iter().position(Option::is_none)?;
        self.groups[place] = Some(Group { id, cursor: if is_first { 0 } else { self.head } });
        Some(place)
    }
}

/// What a record of a message occupies.
pub(super) fn record(len: u64) -> u64 {
    LENGTH + len.next_multiple_of(8)
}

/// What a group is known by.
pub(super) fn group_id(name: &str) -> u128 {
    xxh3_128(name.as_bytes())
}

/// The name of the file of a topic: plain ones as they are, the longest by their hash.
pub(super) fn file_name(topic: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let encoded = percent::encode(topic.as_bytes(), is_plain);
    if encoded.len() <= 240 {
        format!("t-{encoded}")
    } else {
        format!("t-%%{:032x}", xxh3_128(topic.as_bytes())) // which is the code of no topic
    }
}

fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Reads what may be the start of any file; for fuzzing.
#[cfg(feature = "testkit")]
pub(crate) fn fuzz(data: &[u8]) {
    let mut bytes = Header::new(1 << 20).encode();
    for start in [0, 16] {
        let given = data.len().min(SIZE - start);
        bytes[start..start + given].copy_from_slice(&data[..given]); // the second time behind a good magic
        if let Some(mut header) = Header::decode(&bytes) {
            assert!(header.used() <= header.capacity, "{header:?}");
            let again = Header::decode(&header.encode());
            assert_eq!(again.as_ref(), Some(&header));
            header.rewind();
            header.join(1);
            assert!(Header::decode(&header.encode()).is_some(), "{header:?}");
        }
        bytes = Header::new(1 << 20).encode();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_these_bytes() {
        let mut header = Header { head: 0x1008, ..Header::new(0x1_0000) };
        header.publishers_wait = true;
        header.groups[1] = Some(Group { id: 5, cursor: 0x1000 });
        let bytes = header.encode();
        let mut golden = [0_u8; SIZE];
        golden[..8].copy_from_slice(b"\x89PXB\r\n\x1a\n");
        golden[8] = 1;
        golden[18] = 1;
        golden[24..26].copy_from_slice(&[8, 0x10]);
        golden[32] = 2;
        golden[96] = 5;
        golden[113] = 0x10;
        golden[120] = 1;
        assert_eq!(bytes, golden);
        assert_eq!(Header::decode(&bytes), Some(header));
        for (at, byte) in [(0, 0), (8, 2), (16, 4), (31, 0x40), (113, 0x11), (120, 2)] {
            let mut damaged = bytes;
            damaged[at] = byte;
            assert_eq!(Header::decode(&damaged), None, "byte {at}");
        }
    }

    #[test]
    fn names_of_files_are_plain_and_short() {
        assert_eq!(file_name("frames.raw_1-a"), "t-frames.raw_1-a");
        assert_eq!(file_name("a b/ä"), "t-a%20b%2F%C3%A4");
        let long = file_name(&"/".repeat(200));
        assert!(long.len() < 255 && long.starts_with("t-%%"), "{long}");
    }
}

//! How an object lies in Redis: the head of its string, and the names of the keys (format in
//! `docs/protocol-redis.md`).

use xxhash_rust::xxh3::xxh3_64;

/// Length of the head in bytes; a multiple of 16, so that the object stays aligned for numbers.
pub(super) const HEAD: usize = 32;

/// No object has more bytes, or more parts: what says so is damaged.
const MAX_LEN: u64 = 1 << 48;
pub(super) const MAX_PARTS: u64 = 1 << 20;

const MAGIC: [u8; 6] = *b"\x89PXR\r\n";
const VERSION: u16 = 1;

/// What a string says about the object behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Length of the object in bytes.
    pub(super) len: u64,
    /// Which of the objects stored under the id in turn this is.
    pub(super) generation: u64,
    /// Length of every part but the last; 0 when the object follows the head.
    pub(super) part: u32,
}

/// Why a string is no object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It does not start with a head.
    Damaged,
    /// It was written by a newer version.
    Newer(u16),
}

impl Head {
    pub(super) fn to_bytes(self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[..6].copy_from_slice(&MAGIC);
        bytes[6..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.len.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.generation.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.part.to_le_bytes());
        let checksum = xxh3_64(&bytes[..28]).to_le_bytes();
        bytes[28..].copy_from_slice(&checksum[..4]);
        bytes
    }

    /// The head of a string, of which at least the first bytes are given.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let Some((bytes, _)) = bytes.split_first_chunk::<HEAD>() else {
            return Err(Fault::Damaged);
        };
        let number = |at: usize| {
            let mut le = [0; 8];
            le.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(le)
        };
        if bytes[..6] != MAGIC || xxh3_64(&bytes[..28]).to_le_bytes()[..4] != bytes[28..] {
            return Err(Fault::Damaged);
        }
        let version = u16::from_le_bytes([bytes[6], bytes[7]]);
        if version != VERSION {
            return Err(Fault::Newer(version));
        }
        // The low half of the last number; its high half is the checksum.
        let part = number(24) as u32;
        let head = Self { len: number(8), generation: number(16), part };
        if head.len > MAX_LEN || head.parts() > MAX_PARTS {
            return Err(Fault::Damaged);
        }
        Ok(head)
    }

    /// Whether a key of this generation means the object.
    pub(super) fn is_meant(&self, generation: u64) -> bool {
        [0, self.generation].contains(&generation)
    }

    /// How many parts there are beside the string.
    pub(super) fn parts(&self) -> u64 {
        match self.part {
            0 => 0,
            part => self.len.div_ceil(u64::from(part)),
        }
    }

    /// Where part `index` begins and ends in the object.
    pub(super) fn part_range(&self, index: u64) -> std::ops::Range<u64> {
        let part = u64::from(self.part);
        index * part..self.len.min((index + 1) * part)
    }
}

/// The key under which an object lies, and the channel on which its coming is announced. The
/// braces make a cluster keep it in one slot with its parts.
pub(super) fn key_of(id: &str) -> Vec<u8> {
    format!("proxystore:{{{id}}}").into_bytes()
}

/// The key of a part.
pub(super) fn part_key(id: &str, generation: u64, index: u64) -> Vec<u8> {
    format!("proxystore:{{{id}}}:{generation}:{index}").into_bytes()
}

/// Matches the keys of a namespace and no others.
pub(super) fn pattern(namespace: &str) -> Vec<u8> {
    format!("proxystore:{{{namespace}.*}}*").into_bytes()
}

/// The cluster's slot of an id: CRC16 (XMODEM) of what is in braces.
pub(super) fn slot(id: &str) -> u16 {
    let crc = id.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
        })
    });
    crc % 16384
}

/// Reads what may be the start of any string; for fuzzing.
#[cfg(feature = "testkit")]
pub(crate) fn fuzz(data: &[u8]) {
    let mut mended = data.to_vec();
    if let Some(head) = mended.first_chunk_mut::<HEAD>() {
        let checksum = xxh3_64(&head[..28]).to_le_bytes();
        head[28..].copy_from_slice(&checksum[..4]);
    }
    for bytes in [data, &mended] {
        let Ok(head) = Head::parse(bytes) else { continue };
        assert_eq!(head.to_bytes(), bytes[..HEAD]);
        assert!(head.is_meant(0) && head.is_meant(head.generation));
        if let Some(last) = head.parts().checked_sub(1) {
            let range = head.part_range(last);
            assert!(range.start < range.end && range.end == head.len, "{range:?} of {head:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_specification() {
        let head = Head { len: 5, generation: 1, part: 0 };
        let golden = "89505852 0d0a0100 0500000000000000 0100000000000000 00000000 0cb22a12";
        assert_eq!(hex(&head.to_bytes()), golden.replace(' ', ""));
        let head = Head { len: 200 << 20, generation: 0x0102_0304_0506_0708, part: 64 << 20 };
        let golden = "89505852 0d0a0100 0000800c00000000 0807060504030201 00000004 2ddea13e";
        assert_eq!(hex(&head.to_bytes()), golden.replace(' ', ""));
        assert_eq!(Head::parse(&head.to_bytes()), Ok(head));
        assert_eq!(head.parts(), 4);
        assert_eq!(head.part_range(3), 192 << 20..200 << 20);
        assert_eq!(key_of("run.7"), b"proxystore:{run.7}");
        assert_eq!(part_key("run.7", 1, 2), b"proxystore:{run.7}:1:2");
    }

    #[test]
    fn what_is_no_head_is_told_apart() {
        let bytes = Head { len: 5, generation: 1, part: 0 }.to_bytes();
        assert_eq!(Head::parse(&bytes[..31]), Err(Fault::Damaged));
        for at in 0..HEAD {
            let mut damaged = bytes;
            damaged[at] ^= 1;
            assert_eq!(Head::parse(&damaged), Err(Fault::Damaged), "byte {at}");
        }
        let mut newer = bytes;
        newer[6] = 2;
        let checksum = xxh3_64(&newer[..28]).to_le_bytes();
        newer[28..].copy_from_slice(&checksum[..4]);
        assert_eq!(Head::parse(&newer), Err(Fault::Newer(2)));
    }

    #[test]
    fn slots_are_those_of_the_server() {
        assert_eq!(slot("123456789"), 0x31C3); // the check value of the CRC
        assert_eq!(slot("foo"), 12182); // CLUSTER KEYSLOT foo
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
    }
}

//! How objects are named and how their files begin (see `docs/protocol-shm.md`).

use std::fmt;

use crate::connectors::expiry::Expiry;

/// Length of the header at the start of every object file.
pub(super) const HEADER: usize = 64;
/// Where the word that holds generation and state lies.
pub(super) const TAG_AT: usize = 16;
/// Where the word that holds the length of the payload lies.
pub(super) const LEN_AT: usize = 24;
/// Where the word that holds the expiry lies.
pub(super) const EXPIRY_AT: usize = 40;

const MAGIC: [u8; 8] = *b"\x89PXM\r\n\x1a\n";
const VERSION: u32 = 1;

/// What becomes of a segment: writing, live, free, writing again, ..., dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Its writer is at it; nobody reads.
    Writing = 0,
    /// Holds an object.
    Live = 1,
    /// Its object was evicted; may be recycled once no pin is left.
    Free = 2,
    /// Given back to the system; never to be used again.
    Dead = 3,
}

/// Generation and state of a segment in one word, so that they change together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) generation: u64,
    pub(super) state: State,
}

impl Tag {
    pub(super) fn new(generation: u64, state: State) -> Self {
        Self { generation, state }
    }

    pub(super) fn from_word(word: u64) -> Self {
        let word = u64::from_le(word);
        let state = match word & 3 {
            0 => State::Writing,
            1 => State::Live,
            2 => State::Free,
            _ => State::Dead,
        };
        Self { generation: word >> 2, state }
    }

    pub(super) fn word(self) -> u64 {
        (self.generation << 2 | self.state as u64).to_le()
    }

    pub(super) fn bytes(self) -> [u8; 8] {
        (self.generation << 2 | self.state as u64).to_le_bytes()
    }
}

/// The first bytes of an object file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) payload_at: u64,
    pub(super) tag: Tag,
    pub(super) len: u64,
    /// Size of the file.
    pub(super) capacity: u64,
    pub(super) expiry: Expiry,
}

impl Header {
    pub(super) fn encode(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.payload_at.to_le_bytes()[..4]); // a page at most
        bytes[TAG_AT..TAG_AT + 8].copy_from_slice(&self.tag.bytes());
        bytes[LEN_AT..LEN_AT + 8].copy_from_slice(&self.len.to_le_bytes());
        bytes[LEN_AT + 8..LEN_AT + 16].copy_from_slice(&self.capacity.to_le_bytes());
        bytes[EXPIRY_AT..EXPIRY_AT + 8].copy_from_slice(&self.expiry.word().to_le_bytes());
        bytes
    }

    /// Whether it is an object.
    pub(super) fn is_live(&self) -> bool {
        self.tag.state == State::Live && !self.expiry.is_past()
    }

    /// Whether a file of `size` bytes is as long as it was made, and holds the whole payload.
    pub(super) fn fits(&self, size: u64) -> bool {
        self.capacity == size
            && size.checked_sub(self.payload_at).is_some_and(|room| self.len <= room)
    }

    /// `None` for anything that is not a header of this version.
    pub(super) fn decode(bytes: &[u8; HEADER]) -> Option<Self> {
        let (head, rest) = bytes.split_at(TAG_AT);
        let (tag, rest) = rest.split_at(8);
        let payload_at = u64::from(u32::from_le_bytes(head[12..16].try_into().ok()?));
        let version = u32::from_le_bytes(head[8..12].try_into().ok()?);
        let len = u64::from_le_bytes(rest[..8].try_into().ok()?);
        let capacity = u64::from_le_bytes(rest[8..16].try_into().ok()?);
        let tag = u64::from_le_bytes(tag.try_into().ok()?);
        let expiry = Expiry::from_word(u64::from_le_bytes(rest[16..24].try_into().ok()?));
        (head[..8] == MAGIC && version == VERSION && payload_at >= HEADER as u64).then_some(Self {
            payload_at,
            tag: Tag::from_word(tag.to_le()),
            len,
            capacity,
            expiry,
        })
    }
}

/// Where a stored object lies. Its text is the id of the key: finding it takes no directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Name {
    /// A file of its own, removed on eviction.
    File { owner: u64, number: u64 },
    /// One generation of a segment that is recycled.
    Segment { owner: u64, number: u64, generation: u64 },
}

impl Name {
    pub(super) fn owner(self) -> u64 {
        match self {
            Self::File { owner, .. } | Self::Segment { owner, .. } => owner,
        }
    }

    /// The file the object lies in.
    pub(super) fn file(self) -> String {
        match self {
            Self::File { owner, number } => format!("o-{owner:016x}-{number:x}"),
            Self::Segment { owner, number, .. } => format!("s-{owner:016x}-{number:x}"),
        }
    }

    /// The name whose text this is; `None` for any other id.
    pub(super) fn parse(id: &str) -> Option<Self> {
        let mut fields = id.split('-');
        let kind = fields.next()?;
        let mut number = || u64::from_str_radix(fields.next()?, 16).ok();
        let name = match kind {
            "o" => Self::File { owner: number()?, number: number()? },
            "s" => Self::Segment { owner: number()?, number: number()?, generation: number()? },
            _ => return None,
        };
        // One spelling only: no signs, capitals, leading zeros or trailing fields.
        (name.to_string() == id).then_some(name)
    }

    /// The name of generation 0 of the object file `file`.
    pub(super) fn of_file(file: &str) -> Option<Self> {
        Self::parse(file).or_else(|| Self::parse(&format!("{file}-0")))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { .. } => f.write_str(&self.file()),
            Self::Segment { generation, .. } => write!(f, "{}-{generation:x}", self.file()),
        }
    }
}

/// Reads what may be the start of any file, and any name; for fuzzing.
#[cfg(feature = "testkit")]
pub(crate) fn fuzz(data: &[u8]) {
    if let Some(bytes) = data.first_chunk::<HEADER>()
        && let Some(header) = Header::decode(bytes)
    {
        let again = Header::decode(&header.encode()).map(Header::encode);
        assert_eq!(again, Some(header.encode()));
        for size in [data.len() as u64, header.capacity] {
            if header.fits(size) {
                let end = header.payload_at.checked_add(header.len);
                assert!(end.is_some_and(|end| end <= size), "{header:?} in {size} bytes");
            }
        }
        let _ = header.is_live();
    }
    if let Ok(text) = std::str::from_utf8(data) {
        if let Some(name) = Name::parse(text) {
            assert_eq!(name.to_string(), text);
        }
        let _ = Name::of_file(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_these_bytes() {
        let tag = Tag::new(5, State::Live);
        let (len, capacity, expiry) = (0x1_0203, 0x2_0000, Expiry::at(0x7_0605));
        let bytes = Header { payload_at: 4096, tag, len, capacity, expiry }.encode();
        let mut golden = [0_u8; HEADER];
        golden[..8].copy_from_slice(b"\x89PXM\r\n\x1a\n");
        golden[8] = 1;
        golden[13] = 0x10;
        golden[16] = 5 << 2 | 1;
        golden[24..27].copy_from_slice(&[3, 2, 1]);
        golden[34] = 2;
        golden[40..43].copy_from_slice(&[5, 6, 7]);
        assert_eq!(bytes, golden);
        let header = Header::decode(&bytes).unwrap();
        assert_eq!((header.payload_at, header.tag, header.len), (4096, tag, 0x1_0203));
        assert_eq!(header.expiry, expiry);
        assert!(header.fits(0x2_0000) && !header.fits(0x2_0001) && !header.fits(0x1_0000));
        golden[8] = 2;
        assert!(Header::decode(&golden).is_none());
        assert!(Header::decode(&[0; HEADER]).is_none());
    }

    #[test]
    fn names_have_one_spelling() {
        let names = [
            Name::File { owner: 1, number: 0x2f },
            Name::Segment { owner: u64::MAX, number: 0, generation: 7 },
        ];
        for name in names {
            assert_eq!(Name::parse(&name.to_string()), Some(name));
            assert!(Name::of_file(&name.file()).is_some());
        }
        let others =
            ["", "o", "o-1-2", "o-0000000000000001-2F", "o-0000000000000001-2-3", "s-x-y-z"];
        for other in others {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }
}

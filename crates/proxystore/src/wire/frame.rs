//! The fixed part of a frame, and of a piece of a body.

use crate::error::{Error, ErrorKind, Result};

/// Length of the fixed part of a frame, bytes.
pub const FRAME_HEAD: usize = 16;
/// Length of the fixed part of a piece, bytes.
pub const PIECE_HEAD: usize = 4;
/// The longest head of a frame, bytes.
pub const MAX_HEAD: usize = 1 << 14;
/// The longest piece of a body, bytes.
pub const MAX_PIECE: usize = 1 << 22;

const IN_PIECES: u8 = 1;

/// The fixed part of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// Which request or answer this is; see `docs/protocol-endpoint.md`.
    pub kind: u8,
    /// Whether the body comes in pieces.
    pub in_pieces: bool,
    /// Bytes of the head that follows.
    pub head: u16,
    /// Which request this is, or which it answers. The client counts.
    pub number: u32,
    /// Bytes of the body, without the heads of its pieces.
    pub body: u64,
}

impl FrameHead {
    /// As bytes.
    pub fn encode(&self) -> [u8; FRAME_HEAD] {
        let mut out = [0; FRAME_HEAD];
        out[0] = self.kind;
        out[1] = if self.in_pieces { IN_PIECES } else { 0 };
        out[2..4].copy_from_slice(&self.head.to_le_bytes());
        out[4..8].copy_from_slice(&self.number.to_le_bytes());
        out[8..].copy_from_slice(&self.body.to_le_bytes());
        out
    }

    /// From bytes. Allocates nothing: what the lengths promise is still to be believed.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when these bytes do not begin a frame.
    pub fn decode(bytes: &[u8; FRAME_HEAD]) -> Result<Self> {
        let [kind, flags, h0, h1, n0, n1, n2, n3, body @ ..] = *bytes;
        let head = u16::from_le_bytes([h0, h1]);
        if kind == 0 || flags & !IN_PIECES != 0 || usize::from(head) > MAX_HEAD {
            return Err(Error::new(ErrorKind::Corrupt, "read a frame", "this is no frame")
                .with("kind", kind)
                .with("flags", flags)
                .with("head", head)
                .with_hint("something else than an endpoint or its client is at the other end"));
        }
        let number = u32::from_le_bytes([n0, n1, n2, n3]);
        Ok(Self {
            kind,
            in_pieces: flags == IN_PIECES,
            head,
            number,
            body: u64::from_le_bytes(body),
        })
    }
}

/// What comes before a piece of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceHead {
    /// So many bytes of the body follow, at least one.
    Bytes(u32),
    /// The sender failed; an answer that says how follows, and the body is never complete.
    Aborted,
}

impl PieceHead {
    /// As bytes.
    pub fn encode(self) -> [u8; PIECE_HEAD] {
        match self {
            Self::Bytes(len) => len,
            Self::Aborted => 0,
        }
        .to_le_bytes()
    }

    /// From bytes, when `left` bytes of the body are still to come.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for a piece that is too long, or longer than what is left.
    pub fn decode(bytes: [u8; PIECE_HEAD], left: u64) -> Result<Self> {
        match u32::from_le_bytes(bytes) {
            0 => Ok(Self::Aborted),
            len if len as usize <= MAX_PIECE && u64::from(len) <= left => Ok(Self::Bytes(len)),
            len => Err(Error::new(ErrorKind::Corrupt, "read an object", "a piece is too long")
                .with("piece", len)
                .with("left", left)),
        }
    }
}

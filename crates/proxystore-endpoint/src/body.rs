//! The bytes of an object on their way through the daemon: of known length, in pieces, and never all
//! of them at once where they need not be.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use proxystore::{Error, ErrorKind, Result};
use tokio::sync::mpsc;

/// The length of pieces that are cut here, bytes.
pub const PIECE: usize = 256 << 10;

/// How many pieces wait for whoever is slower, producer or consumer.
const AHEAD: usize = 4;

/// Bytes of known length that come in pieces, in order.
#[derive(Debug)]
pub struct Body {
    left: u64,
    pieces: Pieces,
    /// What is to last as long as the bytes.
    keep: Option<Arc<dyn Any + Send + Sync>>,
}

#[derive(Debug)]
enum Pieces {
    Held(VecDeque<Bytes>),
    Coming(mpsc::Receiver<Result<Bytes>>),
}

/// The other end of a body that is still coming.
pub type BodySender = mpsc::Sender<Result<Bytes>>;

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Self::held(VecDeque::new())
    }

    /// Bytes that are in memory already.
    pub fn held(pieces: impl Into<VecDeque<Bytes>>) -> Self {
        let pieces = pieces.into();
        Self {
            left: pieces.iter().map(|piece| piece.len() as u64).sum(),
            pieces: Pieces::Held(pieces),
            keep: None,
        }
    }

    /// The same, which keeps something as long as it is there.
    #[must_use]
    pub fn keeping(self, keep: Arc<dyn Any + Send + Sync>) -> Self {
        Self { keep: Some(keep), ..self }
    }

    /// Bytes that are still coming: `len` of them, through the sender. Dropping it too early is an
    /// error for who reads.
    pub fn coming(len: u64) -> (BodySender, Self) {
        let (sender, receiver) = mpsc::channel(AHEAD);
        (sender, Self { left: len, pieces: Pieces::Coming(receiver), keep: None })
    }

    /// How many bytes are left.
    pub fn len(&self) -> u64 {
        self.left
    }

    /// Whether no bytes are left.
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Whether all the bytes are in memory, so that reading on cannot fail.
    pub fn is_held(&self) -> bool {
        matches!(self.pieces, Pieces::Held(_))
    }

    /// The same bytes once more, where they are in memory.
    pub fn again(&self) -> Option<Self> {
        match &self.pieces {
            Pieces::Held(pieces) => {
                Some(Self { keep: self.keep.clone(), ..Self::held(pieces.clone()) })
            }
            Pieces::Coming(_) => None,
        }
    }

    /// The next piece; `None` after the last.
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        if self.left == 0 {
            return None;
        }
        let piece = match &mut self.pieces {
            Pieces::Held(pieces) => pieces.pop_front().map(Ok),
            Pieces::Coming(receiver) => receiver.recv().await,
        };
        Some(match piece {
            Some(Ok(piece)) if piece.len() as u64 <= self.left => {
                self.left -= piece.len() as u64;
                Ok(piece)
            }
            Some(Ok(_)) => Err(wrong_length("it is longer than it should be")),
            Some(Err(error)) => Err(error),
            None => Err(wrong_length("its sender stopped in the middle")),
        })
    }

    /// All pieces that are left.
    ///
    /// # Errors
    /// That of the sender, and when it stops early.
    pub async fn collect(mut self) -> Result<VecDeque<Bytes>> {
        if let Pieces::Held(pieces) = self.pieces {
            return Ok(pieces);
        }
        let mut pieces = VecDeque::new();
        while let Some(piece) = self.next().await {
            pieces.push_back(piece?);
        }
        Ok(pieces)
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::held([bytes])
    }
}

fn wrong_length(message: &'static str) -> Error {
    Error::new(ErrorKind::Io, "transfer an object", message).with_hint("try again")
}

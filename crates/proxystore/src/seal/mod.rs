//! Seals: what makes a stored object readable by the holders of its key alone.

use std::fmt;

use crate::error::Result;
use crate::key::random;

/// Opens one sealed object; travels in its key and its references, and nowhere else.
#[derive(Clone, PartialEq, Eq)]
pub struct Seal {
    secret: [u8; 32],
    digest: Option<[u8; 32]>,
}

impl Seal {
    /// A seal with a secret that nobody else has.
    ///
    /// # Errors
    /// When the operating system has no random bytes to give.
    pub fn fresh() -> Result<Self> {
        Ok(Self::new(random()?, None))
    }

    /// The seal of an object with this secret; `digest` pins its contents (see `docs/protocol.md`).
    pub fn new(secret: [u8; 32], digest: Option<[u8; 32]>) -> Self {
        Self { secret, digest }
    }

    /// The secret, for whoever writes keys down; keep it out of logs.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// Digest of the one object that the key stands for, if its producer signs what it makes.
    pub fn digest(&self) -> Option<&[u8; 32]> {
        self.digest.as_ref()
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(***)")
    }
}

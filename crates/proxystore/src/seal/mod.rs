//! Seals: what makes a stored object readable by the holders of its key alone.

#[cfg(feature = "seal")]
mod cipher;
#[cfg(feature = "seal")]
mod sign;
#[cfg(not(feature = "seal"))]
mod without;

use std::fmt;

use crate::error::{Error, ErrorKind, Result};
use crate::key::random;

#[cfg(feature = "seal")]
pub(crate) use cipher::{Cipher, sha256};
#[cfg(feature = "seal")]
pub use sign::{Identity, SIGNING_KEY, identity, set_identity, verify};
#[cfg(not(feature = "seal"))]
pub use without::verify;
#[cfg(not(feature = "seal"))]
pub(crate) use without::{Cipher, sha256};

/// Bytes by which a sealed chunk is longer.
pub(crate) const TAG: usize = 16;

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

/// The error for a sealed object that is not what its producer stored.
pub(crate) fn tampered(cause: &'static str) -> Error {
    Error::new(ErrorKind::Tampered, "open a sealed object", cause).with_hint(
        "do not use it: ask its producer for it again, and find out who else writes to the channel",
    )
}

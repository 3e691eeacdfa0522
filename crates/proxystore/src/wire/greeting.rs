//! How a client and a daemon begin: each proves to the other that it knows the endpoint's token,
//! and neither shows it.
//!
//! The client sends a [`Hello`], the daemon a [`Challenge`], the client its proof, the daemon its own proof (or
//! zeros, when it refuses) and a frame: a [`Welcome`](super::Welcome) or a fault. A proof is BLAKE3, keyed with the
//! token, over the role of who proves, both nonces and the endpoint's id. What follows is not encrypted: reach an endpoint over
//! networks you trust, or through another endpoint.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD_NOCASE;

use super::EndpointId;
use crate::error::{Error, ErrorKind, Result};
use crate::key::random;

/// The version of the protocol that this build speaks.
pub const VERSION: u16 = 1;

const MAGIC: [u8; 4] = *b"PSEP";
/// Length of a proof, bytes.
pub const PROOF: usize = 32;

/// The secret that clients and daemon of an endpoint share: a file that only its user reads.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl Token {
    /// A fresh one.
    ///
    /// # Errors
    /// When the operating system has no random bytes to give.
    pub fn random() -> Result<Self> {
        random().map(Self)
    }

    /// As text, to be written where only its user reads.
    pub fn reveal(&self) -> String {
        BASE32_NOPAD_NOCASE.encode(&self.0).to_ascii_lowercase()
    }

    /// The proof of `role`; the same on both sides.
    pub fn proof(&self, role: Role, hello: &Hello, challenge: &Challenge) -> [u8; PROOF] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(role.label());
        hasher.update(&hello.nonce);
        hasher.update(&challenge.nonce);
        hasher.update(challenge.endpoint.as_bytes());
        *hasher.finalize().as_bytes()
    }

    /// Whether `proof` is that of `role`; takes the same time for any wrong one.
    pub fn accepts(
        &self,
        proof: &[u8; PROOF],
        role: Role,
        hello: &Hello,
        challenge: &Challenge,
    ) -> bool {
        blake3::Hash::from_bytes(self.proof(role, hello, challenge)) == *proof
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let raw = BASE32_NOPAD_NOCASE.decode(text.trim().as_bytes()).ok();
        raw.and_then(|raw| raw.try_into().ok()).map(Self).ok_or_else(|| {
            Error::new(ErrorKind::Config, "read an endpoint's token", "this is none")
                .with_hint("copy the file `token` of the endpoint's directory whole")
        })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Who proves something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Who connected.
    Client,
    /// Who was connected to.
    Daemon,
}

impl Role {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Client => b"proxystore endpoint 1: client",
            Self::Daemon => b"proxystore endpoint 1: daemon",
        }
    }
}

/// What a client says first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// The newest version it speaks.
    pub version: u16,
    /// Random, never used twice.
    pub nonce: [u8; 32],
}

/// Length of a [`Hello`], bytes.
pub const HELLO: usize = 40;

impl Hello {
    /// A fresh one, of this build.
    ///
    /// # Errors
    /// When the operating system has no random bytes to give.
    pub fn new() -> Result<Self> {
        Ok(Self { version: VERSION, nonce: random()? })
    }

    /// As bytes.
    pub fn encode(&self) -> [u8; HELLO] {
        let mut out = [0; HELLO];
        out[..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&self.version.to_le_bytes());
        out[8..].copy_from_slice(&self.nonce);
        out
    }

    /// From bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when a client of an endpoint does not begin so.
    pub fn decode(bytes: &[u8; HELLO]) -> Result<Self> {
        let [m0, m1, m2, m3, v0, v1, _, _, nonce @ ..] = *bytes;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(foreign("a client"));
        }
        Ok(Self { version: u16::from_le_bytes([v0, v1]), nonce })
    }
}

/// What a daemon answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Challenge {
    /// The version both will speak; 0 when they have none in common.
    pub version: u16,
    /// Random, never used twice.
    pub nonce: [u8; 32],
    /// Whose daemon this is.
    pub endpoint: EndpointId,
}

/// Length of a [`Challenge`], bytes.
pub const CHALLENGE: usize = 72;

impl Challenge {
    /// The answer of an endpoint to a client.
    ///
    /// # Errors
    /// When the operating system has no random bytes to give.
    pub fn to(hello: &Hello, endpoint: EndpointId) -> Result<Self> {
        Ok(Self { version: hello.version.min(VERSION), nonce: random()?, endpoint })
    }

    /// As bytes.
    pub fn encode(&self) -> [u8; CHALLENGE] {
        let mut out = [0; CHALLENGE];
        out[..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&self.version.to_le_bytes());
        out[8..40].copy_from_slice(&self.nonce);
        out[40..].copy_from_slice(self.endpoint.as_bytes());
        out
    }

    /// From bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when an endpoint does not answer so, [`ErrorKind::Incompatible`] when
    /// it speaks no version that this build does.
    pub fn decode(bytes: &[u8; CHALLENGE]) -> Result<Self> {
        if bytes[..4] != MAGIC {
            return Err(foreign("an endpoint"));
        }
        let version = u16::from_le_bytes([bytes[4], bytes[5]]);
        if version == 0 || version > VERSION {
            return Err(Error::new(
                ErrorKind::Incompatible,
                "greet an endpoint",
                "there is no version of the protocol that both speak",
            )
            .with("endpoint", version)
            .with("client", VERSION)
            .with_hint("install the same version of proxystore on both sides"));
        }
        let (mut nonce, mut endpoint) = ([0; 32], [0; 32]);
        nonce.copy_from_slice(&bytes[8..40]);
        endpoint.copy_from_slice(&bytes[40..]);
        Ok(Self { version, nonce, endpoint: EndpointId::from_bytes(endpoint) })
    }
}

fn foreign(expected: &str) -> Error {
    Error::new(ErrorKind::Corrupt, "greet", format!("the other end is not {expected}"))
        .with_hint("check host and port: something else listens there")
}

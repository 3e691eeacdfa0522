//! Names of endpoints: their public keys.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD_NOCASE, HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// The public key of an endpoint (Ed25519), by which the world knows it.
///
/// Written as 52 letters and digits: base 32 without padding, lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EndpointId(#[serde(with = "serde_bytes")] [u8; 32]);

impl EndpointId {
    /// From the bytes of a public key.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes of the public key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first ten characters, which tell endpoints apart in logs.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(10);
        text
    }

    /// The identifier in the form of a UUID (version 8), for programs that expect one: its first 16 bytes.
    pub fn uuid(&self) -> String {
        let mut raw = [0; 16];
        raw.copy_from_slice(&self.0[..16]);
        raw[6] = raw[6] & 0x0f | 0x80;
        raw[8] = raw[8] & 0x3f | 0x80;
        let hex = HEXLOWER.encode(&raw);
        [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD_NOCASE.encode(&self.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EndpointId({})", self.short())
    }
}

impl FromStr for EndpointId {
    type Err = Error;

    /// Reads base 32 in either case, and 64 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self> {
        let decoded = match text.len() {
            64 => HEXLOWER_PERMISSIVE.decode(text.as_bytes()),
            _ => BASE32_NOPAD_NOCASE.decode(text.as_bytes()),
        };
        decoded.ok().and_then(|raw| raw.try_into().ok()).map(Self).ok_or_else(|| {
            Error::new(ErrorKind::Config, "read an endpoint's id", "this is none")
                .with("id", format_args!("{text:?}"))
                .with_hint(
                    "it has 52 letters and digits; `proxystore endpoint list` shows those of yours",
                )
        })
    }
}

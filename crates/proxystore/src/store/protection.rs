//! What a store does to payloads on their way to the channel: checksums, compression, seals.

use crate::buffer::Buffer;
use crate::connectors::{Capabilities, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::payload::{
    Checked, Compression, Envelope, Framed, Parts, Received, Wrapping, enclose, is_envelope,
};
use crate::seal::{Seal, tampered};
use crate::store::StoreConfig;

/// How a store seals its objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealMode {
    /// Only the holders of an object's key or reference can read it, or make another in its place.
    Sealed,
    /// As `Sealed`, and references are signed by the process that put the object: their holders
    /// cannot make another in its place either.
    Signed,
}

/// The protection that a store gives to what is put.
#[derive(Debug, Clone, Copy)]
pub(super) struct Protection {
    pub(super) checksums: bool,
    pub(super) compression: Option<Compression>,
    pub(super) seal: Option<SealMode>,
}

/// Payloads of less are not compressed: it would not pay.
const COMPRESS_FROM: usize = 1024;

impl Protection {
    pub(super) fn new(config: &StoreConfig, capabilities: Capabilities) -> Self {
        Self {
            // Where bytes are copied out of the channel anyway, another look at them costs little.
            checksums: config
                .checksums()
                .unwrap_or(capabilities.cross_process && !capabilities.zero_copy_get),
            compression: config.compression(),
            seal: config.seal(),
        }
    }

    /// Prepares a payload for the channel. `key` is the one it will be stored under, if it was made
    /// before.
    pub(super) fn wrap<'a>(self, framed: &'a Framed<'a>, key: Option<&Key>) -> Result<Wrapped<'a>> {
        let seal = match (key, self.seal) {
            (Some(key), _) if key.seal().is_some() => key.seal().cloned(),
            (None, Some(_)) => Some(Seal::fresh()?),
            (Some(key), Some(_)) => return Err(unsealed_key(key)),
            _ => None,
        };
        if let Some(seal) = seal {
            let digest = self.seal == Some(SealMode::Signed);
            let wrapping =
                Wrapping { compression: self.worthwhile(framed), seal: Some(&seal), digest };
            let (buffer, digest) = enclose(&framed.parts(), wrapping)?;
            let seal = Some(Seal::new(*seal.secret(), digest));
            return Ok(Wrapped { bytes: Bytes::Enclosed(buffer), seal });
        }
        let checked = if self.checksums { Some(framed.checked()?) } else { None };
        if let Some(compression) = self.worthwhile(framed) {
            let parts = checked.as_ref().map_or_else(|| framed.parts(), Checked::parts);
            let wrapping = Wrapping { compression: Some(compression), ..Wrapping::default() };
            let (buffer, _) = enclose(&parts, wrapping)?;
            if buffer.len() < parts.len() {
                return Ok(Wrapped { bytes: Bytes::Enclosed(buffer), seal: None });
            }
        }
        let bytes = checked.map_or(Bytes::Plain(framed), Bytes::Checked);
        Ok(Wrapped { bytes, seal: None })
    }

    fn worthwhile(self, framed: &Framed<'_>) -> Option<Compression> {
        self.compression.filter(|_| framed.len() >= COMPRESS_FROM)
    }
}

/// A payload as it goes to the channel.
#[derive(Debug)]
pub struct Wrapped<'a> {
    bytes: Bytes<'a>,
    seal: Option<Seal>,
}

#[derive(Debug)]
enum Bytes<'a> {
    Plain(&'a Framed<'a>),
    Checked(Checked<'a>),
    Enclosed(Buffer),
}

impl Wrapped<'_> {
    /// The bytes for the connector.
    pub fn parts(&self) -> Parts<'_> {
        match &self.bytes {
            Bytes::Plain(framed) => framed.parts(),
            Bytes::Checked(checked) => checked.parts(),
            Bytes::Enclosed(buffer) => Parts::from(&**buffer),
        }
    }

    /// The key that the connector returned, with what opens the object.
    pub fn key(&self, key: Key) -> Key {
        key.sealed(self.seal.clone())
    }
}

/// The payload in stored bytes.
pub(super) fn unwrap(bytes: Buffer, seal: Option<&Seal>) -> Result<Received> {
    if is_envelope(&bytes) {
        return Received::parse(Envelope::open_all(bytes, seal)?);
    }
    match seal {
        None => Received::parse(bytes),
        Some(_) => Err(tampered("it is not sealed, though its key says so")),
    }
}

fn unsealed_key(key: &Key) -> Error {
    Error::new(ErrorKind::Config, "put an object", "its key cannot seal it")
        .with("key", key)
        .with_hint("make keys of a sealed store by its own `new_key` or `future`")
}

impl StoreConfig {
    /// Whether checksums are wished; `None` leaves it to the channel.
    pub fn checksums(&self) -> Option<bool> {
        match self.settings.get(CHECKSUMS) {
            Some(Value::Bool(on)) => Some(*on),
            _ => None,
        }
    }

    /// How objects are compressed.
    pub fn compression(&self) -> Option<Compression> {
        match self.settings.get(COMPRESSION) {
            Some(Value::Text(name)) => name.parse().ok(),
            _ => None,
        }
    }

    /// How objects are sealed.
    pub fn seal(&self) -> Option<SealMode> {
        match self.settings.get(SEAL) {
            Some(Value::Bool(true)) => Some(SealMode::Sealed),
            Some(Value::Text(mode)) if mode == SIGNED => Some(SealMode::Signed),
            _ => None,
        }
    }
}

pub(super) const CHECKSUMS: &str = "checksums";
pub(super) const COMPRESSION: &str = "compression";
pub(super) const SEAL: &str = "seal";
pub(super) const SIGNED: &str = "signed";

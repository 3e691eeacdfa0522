//! Keys: what a connector returns for stored bytes.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::SystemTime;

use crate::error::{Error, ErrorKind, Result};
use crate::seal::Seal;

/// Names one object in a channel: id, generation and size.
///
/// Two keys are equal when id and generation are. The *generation* tells apart the objects that
/// were stored under one id in turn; a key of generation 0 ([`Key::latest`]) means whichever is
/// current, which is what a key handed out before its object exists must mean.
///
/// The key of a sealed object also holds its [`Seal`], which is never shown.
#[derive(Clone)]
pub struct Key {
    id: Box<str>,
    generation: u64,
    size: u64,
    seal: Option<Box<Seal>>,
}

impl Key {
    /// A key for the object `id` of one generation, `size` bytes long as stored (0 = unknown).
    pub fn new(id: impl Into<Box<str>>, generation: u64, size: u64) -> Self {
        Self { id: id.into(), generation, size, seal: None }
    }

    /// A key for whichever generation of `id` is current.
    pub fn latest(id: impl Into<Box<str>>) -> Self {
        Self::new(id, 0, 0)
    }

    /// The key of whichever object is current under the same id.
    #[must_use]
    pub fn to_latest(&self) -> Self {
        // A digest is that of one object.
        let seal = self.seal().map(|seal| Seal::new(*seal.secret(), None));
        Self::latest(self.id()).sealed(seal)
    }

    /// A fresh id: 128 random bits in hexadecimal.
    ///
    /// # Errors
    /// When the operating system has no random bytes to give.
    pub fn unique() -> Result<Self> {
        Ok(Self::latest(unique_id()?))
    }

    /// The id: printable ASCII without `/`, safe as a file name (see [`check_id`]).
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The generation, 0 for whichever is current.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Size in bytes as stored, 0 when unknown.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What opens the object, if it is sealed.
    pub fn seal(&self) -> Option<&Seal> {
        self.seal.as_deref()
    }

    /// The same key with what opens its object.
    #[must_use]
    pub fn sealed(self, seal: Option<Seal>) -> Self {
        Self { seal: seal.map(Box::new), ..self }
    }
}

/// 128 random bits in hexadecimal.
///
/// # Errors
/// When the operating system has no random bytes to give.
pub fn unique_id() -> Result<String> {
    let raw: [u8; 16] = random()?;
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut id = String::with_capacity(32);
    for byte in raw {
        id.push(HEX[usize::from(byte >> 4)] as char);
        id.push(HEX[usize::from(byte & 15)] as char);
    }
    Ok(id)
}

/// A generation that no other filling of an id has, whichever process or host it comes from:
/// milliseconds since 1970, then 20 random bits.
pub(crate) fn fresh_generation() -> Result<u64> {
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(clock.as_millis()).unwrap_or_default();
    Ok(millis.max(1) << 20 | u64::from(u32::from_le_bytes(random()?) >> 12))
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut raw = [0_u8; N];
    getrandom::fill(&mut raw).map_err(|source| {
        Error::new(ErrorKind::Io, "draw random bytes", "none to be had from the operating system")
            .with_source(source)
    })?;
    Ok(raw)
}

/// Refuses ids that could leave a directory or break a log line: 1 to 200 characters out of
/// letters, digits, `-`, `_` and `.`, not starting with a dot.
///
/// # Errors
/// [`ErrorKind::Config`] naming the id.
pub fn check_id(id: &str) -> Result<()> {
    let safe = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    if (1..=200).contains(&id.len()) && id.bytes().all(safe) && !id.starts_with('.') {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Config, "use a key", "the id is not usable as a name")
        .with("id", format_args!("{id:?}"))
        .with_hint("use 1 to 200 letters, digits, '-', '_' or '.', not starting with a dot"))
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.generation == other.generation
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
        self.generation.hash(state);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self}, {} bytes)", self.size)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.generation {
            0 => f.write_str(&self.id),
            generation => write!(f, "{}@{generation}", self.id),
        }
    }
}

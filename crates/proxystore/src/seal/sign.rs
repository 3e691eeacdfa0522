//! Signatures of references: Ed25519 (RFC 8032).

use std::fmt;
use std::path::Path;
use std::sync::OnceLock;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::error::{Error, ErrorKind, Result};
use crate::key::random;
use crate::reference::{Reference, Signature};
use crate::store::{SealMode, Store};

/// Environment variable with the path of the file of this process's identity.
pub const SIGNING_KEY: &str = "PROXYSTORE_SIGNING_KEY";

/// The key pair by which a process signs the references it makes.
///
/// ```
/// use proxystore::seal::Identity;
/// let identity = Identity::generate()?;
/// let same = Identity::from_seed(*identity.seed())?;
/// assert_eq!(identity.public_key(), same.public_key());
/// # Ok::<(), proxystore::Error>(())
/// ```
pub struct Identity {
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

impl Identity {
    /// A new identity.
    ///
    /// # Errors
    /// When the operating system has no random bytes to give.
    pub fn generate() -> Result<Self> {
        Self::from_seed(random()?)
    }

    /// The identity of a seed.
    ///
    /// # Errors
    /// Never in practice: every 32 bytes are a seed.
    pub fn from_seed(seed: [u8; 32]) -> Result<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|source| {
            Error::new(ErrorKind::Config, "use a signing key", source.to_string())
        })?;
        Ok(Self { seed, pair })
    }

    /// Reads an identity from a file, which holds the seed as 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the file cannot be read or holds something else.
    pub fn read(path: &Path) -> Result<Self> {
        let error = |cause: String| {
            Error::new(ErrorKind::Config, "read a signing key", cause)
                .with("path", path.display())
                .with_hint(
                    "the file holds 64 hexadecimal digits; make one with `generate_identity`",
                )
        };
        let text = std::fs::read_to_string(path).map_err(|source| error(source.to_string()))?;
        let seed = HEXLOWER_PERMISSIVE.decode(text.trim().as_bytes()).ok();
        let seed = seed.and_then(|seed| seed.try_into().ok());
        Self::from_seed(seed.ok_or_else(|| error("it holds no key".to_owned()))?)
    }

    /// What the identity is made of; keep it secret.
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// By which others know this identity.
    pub fn public_key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        key.copy_from_slice(self.pair.public_key().as_ref());
        key
    }

    fn sign(&self, message: &[u8]) -> Signature {
        let mut bytes = [0; 64];
        bytes.copy_from_slice(self.pair.sign(message).as_ref());
        Signature { producer: self.public_key(), bytes }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", HEXLOWER.encode(&self.public_key()))
    }
}

// Set once, so that reading it takes no lock that a fork could leave behind.
static IDENTITY: OnceLock<Identity> = OnceLock::new();

/// Chooses by which identity this process signs, once.
///
/// # Errors
/// [`ErrorKind::Config`] when it has another already.
pub fn set_identity(identity: Identity) -> Result<()> {
    let seed = identity.seed;
    if IDENTITY.get_or_init(|| identity).seed == seed {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Config, "choose an identity", "this process has another already")
        .with_hint("choose it once, before the first signed reference is sent"))
}

/// The identity of this process: the one chosen, else that of the file named by
/// `PROXYSTORE_SIGNING_KEY`.
///
/// # Errors
/// [`ErrorKind::Config`] when there is none, or the file cannot be read.
pub fn identity() -> Result<&'static Identity> {
    if let Some(identity) = IDENTITY.get() {
        return Ok(identity);
    }
    let Some(path) = std::env::var_os(SIGNING_KEY) else {
        return Err(Error::new(
            ErrorKind::Config,
            "sign a reference",
            "this process has no signing key",
        )
        .with_hint(format!(
            "choose one with `seal::set_identity` (Python: `trust.identity`), or name its file in \
             {SIGNING_KEY}"
        )));
    };
    let identity = Identity::read(Path::new(&path))?;
    Ok(IDENTITY.get_or_init(|| identity))
}

/// Checks the signature of a reference and returns the public key of its producer; `None` when it
/// is not signed.
///
/// # Errors
/// [`ErrorKind::Untrusted`] for a signature that is not the producer's.
pub fn verify(reference: &Reference) -> Result<Option<[u8; 32]>> {
    let Some(Signature { producer, bytes }) = &reference.signature else { return Ok(None) };
    let key = UnparsedPublicKey::new(&ED25519, producer);
    match key.verify(&signed_bytes(reference)?, bytes) {
        Ok(()) => Ok(Some(*producer)),
        Err(_) => Err(Error::new(
            ErrorKind::Untrusted,
            "check the signature of a reference",
            "it is not by the producer that it names, or the reference was altered",
        )
        .with("producer", HEXLOWER.encode(producer))
        .with("store", &reference.store.name)
        .with_hint("do not use it; ask its producer for another")),
    }
}

impl Store {
    /// Signs a reference that this process made, if the store was told to sign.
    ///
    /// # Errors
    /// As [`identity`].
    pub fn sign(&self, reference: &mut Reference) -> Result<()> {
        if self.config().seal() == Some(SealMode::Signed) && reference.signature.is_none() {
            let identity = identity()?;
            reference.signature = Some(identity.sign(&signed_bytes(reference)?));
        }
        Ok(())
    }
}

/// What a signature is made of: all but itself, and whether the object is to be evicted, which the
/// holders of a proxy decide.
fn signed_bytes(reference: &Reference) -> Result<Vec<u8>> {
    Reference { evict: false, share: None, signature: None, ..reference.clone() }.encode()
}

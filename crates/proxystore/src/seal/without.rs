//! What a build without the feature `seal` says of sealed objects.

use crate::error::{Error, ErrorKind, Result};
use crate::reference::Reference;
use crate::seal::{Seal, TAG};
use crate::store::{SealMode, Store};

/// The producer of a signed reference; this build cannot check signatures.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for a reference that is signed.
pub fn verify(reference: &Reference) -> Result<Option<[u8; 32]>> {
    if reference.signature.is_none() { Ok(None) } else { Err(missing()) }
}

impl Store {
    /// Signs a reference, which this build cannot do.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when the store was told to sign.
    pub fn sign(&self, reference: &mut Reference) -> Result<()> {
        let signs = self.config().seal() == Some(SealMode::Signed) && reference.signature.is_none();
        if signs { Err(missing()) } else { Ok(()) }
    }
}

/// This build has no cipher.
#[derive(Debug)]
pub(crate) enum Cipher {}

impl Cipher {
    pub(crate) fn new(_seal: &Seal, _salt: &[u8], _context: &[u8], _count: u64) -> Result<Self> {
        Err(missing())
    }

    pub(crate) fn close(&self, _index: u64, _chunk: &mut [u8]) -> Result<[u8; TAG]> {
        match *self {}
    }

    pub(crate) fn open(
        &self,
        _index: u64,
        _bytes: &mut [u8],
        _start: usize,
        _tag: &[u8],
    ) -> Result<()> {
        match *self {}
    }
}

/// Never called: there is no cipher whose output could be hashed.
pub(crate) fn sha256(_bytes: &[u8]) -> [u8; 32] {
    [0; 32]
}

fn missing() -> Error {
    Error::new(ErrorKind::Unsupported, "use a sealed object", "this build has no cipher")
        .with_hint("build the crate with its feature `seal`")
}

//! The cipher of sealed objects: AES-256-GCM in the STREAM construction.
//!
//! Hoang, Reyhanitabar, Rogaway and Vizár, *Online Authenticated-Encryption and its Nonce-Reuse
//! Misuse-Resistance* (CRYPTO 2015): the nonce of a chunk is its number and whether it is the last,
//! so that chunks cannot be exchanged, repeated or left out. The key is derived by HKDF-SHA256
//! (RFC 5869) from the secret of the object and a salt that is fresh for every write, so no nonce is
//! used twice under one key.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, Tag, UnboundKey};
use ring::{digest, hkdf};

use crate::error::{Error, ErrorKind, Result};
use crate::seal::{Seal, TAG};

/// Encrypts and decrypts the chunks of one object as it was written once.
pub(crate) struct Cipher {
    key: LessSafeKey,
    count: u64,
}

impl Cipher {
    /// The cipher of an object of `count` chunks; `context` is what must not have been altered.
    pub(crate) fn new(seal: &Seal, salt: &[u8], context: &[u8], count: u64) -> Result<Self> {
        if count > u64::from(u32::MAX) {
            return Err(Error::new(ErrorKind::Encode, "seal an object", "it is too large")
                .with_hint("store it in pieces under keys of their own"));
        }
        let key: UnboundKey = hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
            .extract(seal.secret())
            .expand(&[b"proxystore seal 1", context], &AES_256_GCM)
            .map_err(refused)?
            .into();
        Ok(Self { key: LessSafeKey::new(key), count })
    }

    fn nonce(&self, index: u64) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[7..11].copy_from_slice(&(index as u32).to_be_bytes()); // lossless: below the count
        nonce[11] = u8::from(index + 1 == self.count);
        Nonce::assume_unique_for_key(nonce)
    }

    /// Encrypts a chunk in place.
    pub(crate) fn close(&self, index: u64, chunk: &mut [u8]) -> Result<[u8; TAG]> {
        let tag = self
            .key
            .seal_in_place_separate_tag(self.nonce(index), Aad::empty(), chunk)
            .map_err(refused)?;
        let mut bytes = [0; TAG];
        bytes.copy_from_slice(tag.as_ref());
        Ok(bytes)
    }

    /// Decrypts what lies in `bytes` from `start` on, and puts it at their start.
    ///
    /// # Errors
    /// [`ErrorKind::Tampered`] when it is not what was encrypted with this key at this place.
    pub(crate) fn open(
        &self,
        index: u64,
        bytes: &mut [u8],
        start: usize,
        tag: &[u8],
    ) -> Result<()> {
        let opened = Tag::try_from(tag).ok().is_some_and(|tag| {
            let nonce = self.nonce(index);
            self.key.open_in_place_separate_tag(nonce, Aad::empty(), tag, bytes, start..).is_ok()
        });
        if opened {
            return Ok(());
        }
        Err(super::tampered("it was altered, or sealed for another key"))
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cipher({} chunks)", self.count)
    }
}

/// For what cannot be while keys and chunks are as long as they are here.
fn refused(source: ring::error::Unspecified) -> Error {
    Error::new(ErrorKind::Encode, "seal an object", source.to_string())
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

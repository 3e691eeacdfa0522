//! Objects that several holders have to be done with before they are evicted.
//!
//! Each holder leaves a mark beside the object, and whoever finds the marks of all evicts it. That
//! needs no counter in the channel, so it works on every one; and since a mark is that of one holder,
//! a holder that gives back its share again, for want of knowing that it did, does no harm.

use std::time::Duration;

use super::Store;
use crate::connectors::PutOptions;
use crate::error::Result;
use crate::key::Key;
use crate::payload::Parts;
use crate::reference::{Reference, Share};

/// Marks beside an object that vanished by itself stay no longer than this; holders of an object that
/// stays may not be further apart.
const MARK_LASTS: Duration = Duration::from_hours(30 * 24);

impl Store {
    /// Does with the object what a reference says is to be done when it was used: evicts it, gives
    /// back a share of it, or nothing.
    ///
    /// # Errors
    /// What the channel fails with; it may be called again.
    pub fn free(&self, reference: &Reference) -> Result<()> {
        match reference.share {
            _ if !reference.evict || reference.inline.is_some() => Ok(()),
            None => self.evict(&reference.key),
            Some(share) => self.give_back(&reference.key, share),
        }
    }

    /// Gives back a share of an object; the last one evicts it.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) on channels without deferred keys,
    /// else what the channel fails with; it may be called again.
    pub fn give_back(&self, key: &Key, share: Share) -> Result<()> {
        self.cache().remove(key);
        let connector = self.connector();
        if !connector.exists(key)? {
            return self.forget(key, share.of); // all were given back before
        }
        let ttl = connector.capabilities().ttl.then_some(MARK_LASTS);
        let options =
            PutOptions { key: Some(mark(key, share.number)), ttl, ..PutOptions::default() };
        // Not by the store: nobody reads it, so it is not sealed.
        connector.put(&Parts::from(&b"given back"[..]), &options)?;
        for number in (0..share.of).filter(|number| *number != share.number) {
            if !connector.exists(&mark(key, number))? {
                // Others may have been faster, and have removed the marks that they knew of.
                return if connector.exists(key)? { Ok(()) } else { self.forget(key, share.of) };
            }
        }
        self.evict(key)?;
        self.forget(key, share.of)
    }

    /// Whether a share of an object was given back, or nothing is left to share.
    ///
    /// # Errors
    /// What the channel fails with.
    pub fn is_given_back(&self, key: &Key, share: Share) -> Result<bool> {
        let connector = self.connector();
        Ok(connector.exists(&mark(key, share.number))? || !connector.exists(key)?)
    }

    /// Evicts an object, whoever has a share of it.
    pub(crate) fn evict_shared(&self, key: &Key, of: u32) -> Result<()> {
        self.evict(key)?;
        self.forget(key, of)
    }

    fn forget(&self, key: &Key, of: u32) -> Result<()> {
        (0..of).try_for_each(|number| self.connector().evict(&mark(key, number)))
    }
}

/// Key of the record that one holder is done with an object.
fn mark(key: &Key, number: u32) -> Key {
    Key::latest(format!("{}.done{number}", key.id()))
}

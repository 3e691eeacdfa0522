//! What a process believes of the references it is sent, and who may resolve its objects.
//!
//! - [`sites`]: a store says on which hosts its objects may be resolved.
//! - [`producers`]: a process says whose references it resolves at all.
//!
//! The library keeps these rules on the side that resolves: they bind programs that use it, and no
//! others. What keeps the bytes from everybody else is encryption.

pub mod patterns;
pub mod producers;
pub mod sites;

pub use producers::require_producers;

use crate::error::Result;
use crate::reference::Reference;

/// Checks a reference that was sent, before its store is opened or its object fetched.
///
/// # Errors
/// [`ErrorKind::Untrusted`](crate::ErrorKind::Untrusted) when this process demands a producer who
/// did not sign it, [`ErrorKind::Forbidden`](crate::ErrorKind::Forbidden) when its store may not be
/// read here.
pub fn check(reference: &Reference) -> Result<()> {
    producers::check(reference)?;
    sites::check(&reference.store)
}

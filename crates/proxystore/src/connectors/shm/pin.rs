//! Pins: what keeps a segment from being recycled while its bytes are in use.
//!
//! A pin is a shared lock held by an open file description that nothing but a mapping keeps
//! open. It costs no descriptor, is inherited by forked children together with the mapping, and
//! ends when the last of them unmaps or dies. Every function here is given a file that holds the
//! lock (or that is never recycled), and every buffer made here keeps a mapping of that file.
#![expect(unsafe_code, reason = "turns pinned mappings into buffers")]

use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::fd::OwnedFd;
use rustix::io::Result;

use super::sys::{Mapping, PAGE};
use crate::buffer::Buffer;

/// A view that is kept, and the pin that makes it safe to look at.
struct Pinned {
    _view: Arc<Mapping>,
    _pin: Mapping,
}

/// Writable pages, copied where they are written. They are the pin.
pub(super) fn private(file: &OwnedFd, start: u64, len: usize) -> Result<Buffer> {
    let (page, skip) = page_of(start);
    let mapping = Mapping::private(file, page, skip + len)?;
    Ok(buffer(mapping.at(skip), len, true, Arc::new(mapping)))
}

/// Read-only pages of their own. They are the pin.
pub(super) fn shared(file: &OwnedFd, start: u64, len: usize) -> Result<Buffer> {
    let (page, skip) = page_of(start);
    let mapping = Mapping::shared(file, page, skip + len)?;
    Ok(buffer(mapping.at(skip), len, false, Arc::new(mapping)))
}

/// Read-only pages of a kept view of the whole file; one page of the file is the pin.
pub(super) fn view(file: &OwnedFd, view: Arc<Mapping>, start: u64, len: usize) -> Result<Buffer> {
    let start = usize::try_from(start).unwrap_or(usize::MAX);
    if view.len().checked_sub(len).is_none_or(|last| last < start) {
        return Err(rustix::io::Errno::BADMSG);
    }
    let pin = Mapping::shared(file, 0, PAGE)?;
    Ok(buffer(view.at(start), len, false, Arc::new(Pinned { _view: view, _pin: pin })))
}

/// Memory of an allocation, which the allocation guards.
pub(super) fn allocation(data: &Mapping, len: usize, owner: Arc<dyn Any + Send + Sync>) -> Buffer {
    buffer(data.at(0), len, true, owner)
}

fn buffer(
    start: NonNull<u8>,
    len: usize,
    writable: bool,
    owner: Arc<dyn Any + Send + Sync>,
) -> Buffer {
    // SAFETY: the callers pass the start of `len` mapped bytes that the owner keeps mapped, and
    // pinned so that nobody else changes them; writable only where writes stay private (or, for
    // an allocation, where the bytes are not published yet).
    unsafe { Buffer::from_owner(start, len, writable, owner) }
}

/// The offset of the page a byte lies in, and the byte's place in that page.
fn page_of(offset: u64) -> (u64, usize) {
    let skip = offset % PAGE as u64;
    (offset - skip, usize::try_from(skip).unwrap_or_default())
}

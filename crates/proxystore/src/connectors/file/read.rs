//! From a published file to bytes: mapped where that is safe and pays, else read.
#![expect(unsafe_code, reason = "maps files")]
#![expect(clippy::cast_possible_truncation, reason = "offsets into memory that exists")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Instant;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::expiry;
use super::format::{self, Fault, Trailer};
use crate::buffer::Buffer;
use crate::connectors::Access;

/// From this size on a mapping is cheaper than a copy.
const MAP_FROM: u64 = 256 * 1024;
/// Mappings start at a multiple of this: a page of any machine.
const MAP_ALIGNMENT: u64 = 64 * 1024;
/// How much is read between two looks at the clock.
const CHUNK: usize = 64 << 20;

/// The trailer of an open file, or why it is no object.
pub(super) fn trailer_of(file: &File) -> io::Result<Result<Trailer, Fault>> {
    trailer_at_the_end(file, file.metadata()?.len())
}

/// The same, and `None` when the object expired.
pub(super) fn live_trailer_of(file: &File) -> io::Result<Option<Result<Trailer, Fault>>> {
    let about = file.metadata()?;
    if expiry::of(&about).is_past() {
        return Ok(None);
    }
    trailer_at_the_end(file, about.len()).map(Some)
}

fn trailer_at_the_end(file: &File, file_len: u64) -> io::Result<Result<Trailer, Fault>> {
    let Some(at) = file_len.checked_sub(format::LEN as u64) else {
        return Ok(Err(Fault::Cut));
    };
    let mut bytes = [0; format::LEN];
    match file.read_exact_at(&mut bytes, at) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Err(Fault::Cut)),
        outcome => outcome.map(|()| Trailer::parse(&bytes, file_len)),
    }
}

/// The bytes of a range within the file.
pub(super) fn read(
    file: &File,
    range: &Range<u64>,
    access: Access,
    is_local: bool,
    deadline: Option<Instant>,
) -> io::Result<Buffer> {
    let len = range.end - range.start;
    let bytes = if is_local && len >= MAP_FROM {
        map(file, range, access)?
    } else {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let mut bytes = Buffer::zeroed(len);
        let target = bytes.as_mut().expect("a new buffer has one holder");
        read_into(file, range.start, target, deadline)?;
        bytes
    };
    Ok(match access {
        Access::Private => bytes,
        Access::ReadOnly => bytes.into_read_only(),
    })
}

/// Fills `target` from the file.
pub(super) fn read_into(
    file: &File,
    start: u64,
    target: &mut [u8],
    deadline: Option<Instant>,
) -> io::Result<()> {
    let mut at = start;
    for chunk in target.chunks_mut(CHUNK) {
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        file.read_exact_at(chunk, at)?;
        at += chunk.len() as u64;
    }
    Ok(())
}

/// Maps the range. A published file is never written to or cut by a connector, only removed or
/// replaced, which leaves the mapping as it is.
fn map(file: &File, range: &Range<u64>, access: Access) -> io::Result<Buffer> {
    let first = range.start / MAP_ALIGNMENT * MAP_ALIGNMENT;
    let len = usize::try_from(range.end - first).map_err(io::Error::other)?;
    let protection = match access {
        Access::Private => ProtFlags::READ | ProtFlags::WRITE,
        Access::ReadOnly => ProtFlags::READ,
    };
    // SAFETY: a new private mapping at an address of the kernel's choice.
    let start = unsafe { mmap(ptr::null_mut(), len, protection, MapFlags::PRIVATE, file, first) }?;
    let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
    let owner = Arc::new(Mapping { start, len });
    let skipped = (range.start - first) as usize;
    let writable = access == Access::Private;
    // SAFETY: `skipped..len` is within the mapping, which lives as long as its owner; nobody
    // changes the file (see above), and pages that are written to become this process's own.
    Ok(unsafe { Buffer::from_owner(start.add(skipped), len - skipped, writable, owner) })
}

/// Pages of a file; unmapped when dropped.
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: plain memory without thread affinity, accessed only through Buffer.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this length, and unmapped only here.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

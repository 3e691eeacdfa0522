//! Memory that holds stored bytes: heap, anonymous pages, or a mapping of a channel.
#![expect(unsafe_code, reason = "hands out slices of memory whose owner is type-erased")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::any::Any;
use std::fmt;
use std::ops::{Deref, Range};
use std::ptr::NonNull;
use std::sync::Arc;

use bytemuck::Pod;

use crate::error::{Error, ErrorKind, Result};

/// Alignment of every buffer made here, and of the parts of a payload.
pub const ALIGNMENT: usize = 64;

/// Allocations from this size on come straight from the kernel, already zeroed.
const PAGES_FROM: usize = 128 * 1024;

/// Bytes that came out of a channel, or are about to go into one.
///
/// Cheap to clone and to [`slice`](Self::slice): all clones share one owner. Bytes can be changed
/// through [`as_mut`](Self::as_mut) while there is only one, and only when the memory is private
/// to the holder.
#[derive(Clone)]
pub struct Buffer {
    start: NonNull<u8>,
    len: usize,
    writable: bool,
    owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the memory is owned by `owner`, which is Send + Sync; shared access is read-only and
// exclusive access needs `&mut self` and a unique owner.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `len` zero bytes, aligned to [`ALIGNMENT`] and private to the caller.
    pub fn zeroed(len: usize) -> Self {
        Self::of_heap(Heap::zeroed(len).unwrap_or_else(|| handle_alloc_error(Heap::layout(len))))
    }

    /// As [`zeroed`](Self::zeroed), for a length that somebody else wrote down.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when there is not so much memory.
    pub fn try_zeroed(len: u64) -> Result<Self> {
        let heap = usize::try_from(len).ok().filter(|len| isize::try_from(*len).is_ok());
        heap.and_then(Heap::zeroed).map(Self::of_heap).ok_or_else(|| {
            Error::new(ErrorKind::Io, "make room for an object", "there is not so much memory")
                .with("bytes", len)
                .with_hint("read parts of it by a view, or do not believe whoever stored it")
        })
    }

    fn of_heap(heap: Heap) -> Self {
        let (start, len) = (heap.start, heap.len);
        // SAFETY: the allocation is `len` bytes long and lives as long as its owner.
        unsafe { Self::from_owner(start, len, true, Arc::new(heap)) }
    }

    /// A private copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut copy = Self::zeroed(bytes.len());
        if let Some(target) = copy.as_mut() {
            target.copy_from_slice(bytes);
        }
        copy
    }

    /// The bytes of `owner`, never to be written to; nothing is copied.
    pub fn of(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        let owner = Arc::new(owner);
        let bytes = (*owner).as_ref();
        let (start, len) = (NonNull::from(bytes).cast(), bytes.len());
        // SAFETY: the bytes are borrowed from the owner, which stays where it is and is never
        // borrowed mutably: they are valid and unchanged while it lives.
        unsafe { Self::from_owner(start, len, false, owner) }
    }

    /// A buffer over memory that `owner` keeps alive.
    ///
    /// # Safety
    /// `start` is valid for reads of `len` bytes for as long as `owner` lives, nobody changes the
    /// bytes meanwhile except through this buffer, and if `writable`, writes are valid too and
    /// seen by nobody else.
    pub unsafe fn from_owner(
        start: NonNull<u8>,
        len: usize,
        writable: bool,
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        Self { start, len, writable, owner }
    }

    /// The part of this buffer in `range`, sharing its memory.
    ///
    /// # Panics
    /// When the range is out of bounds, as slices do.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len, "range out of bounds");
        Self {
            // SAFETY: in bounds, checked above.
            start: unsafe { self.start.add(range.start) },
            len: range.len(),
            writable: self.writable,
            owner: Arc::clone(&self.owner),
        }
    }

    /// The bytes for writing; `None` for read-only memory and while clones or slices exist.
    pub fn as_mut(&mut self) -> Option<&mut [u8]> {
        if !self.writable || Arc::get_mut(&mut self.owner).is_none() {
            return None;
        }
        // SAFETY: writable memory of a unique owner, borrowed exclusively.
        Some(unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) })
    }

    /// Whether the memory may be written to by its one holder.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// The same memory, never to be written to.
    #[must_use]
    pub fn into_read_only(mut self) -> Self {
        self.writable = false;
        self
    }

    /// Address of the first byte, for bridges that hand the memory to another language.
    pub fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: valid for `len` bytes while the owner lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl<T: Pod + Send + Sync> From<Vec<T>> for Buffer {
    fn from(mut elements: Vec<T>) -> Self {
        let (start, len) = (elements.as_mut_ptr().cast::<u8>(), size_of_val(&elements[..]));
        let owner = Arc::new(elements);
        // SAFETY: a vector's pointer is never null, and its heap memory stays where it is when
        // the vector itself is moved into the Arc. Plain elements may be written to as bytes.
        unsafe { Self::from_owner(NonNull::new_unchecked(start), len, true, owner) }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = if self.writable { "private" } else { "read-only" };
        write!(f, "Buffer({} bytes, {access})", self.len)
    }
}

/// Aligned zeroed memory; large pieces are anonymous pages, so that zeroing costs nothing extra.
struct Heap {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: plain memory without thread affinity.
unsafe impl Send for Heap {}
// SAFETY: as above; accessed only through Buffer.
unsafe impl Sync for Heap {}

impl Heap {
    fn layout(len: usize) -> Layout {
        Layout::from_size_align(len.max(1), ALIGNMENT).expect("a length within isize")
    }

    fn zeroed(len: usize) -> Option<Self> {
        let start = if len >= PAGES_FROM {
            anonymous_pages(len)
        } else {
            // SAFETY: the layout is not empty.
            NonNull::new(unsafe { alloc_zeroed(Self::layout(len)) })
        };
        Some(Self { start: start?, len })
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        if self.len >= PAGES_FROM {
            // SAFETY: mapped in `anonymous_pages` with this length, and unmapped only here.
            let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) };
        } else {
            // SAFETY: allocated in `zeroed` with this layout.
            unsafe { dealloc(self.start.as_ptr(), Self::layout(self.len)) };
        }
    }
}

fn anonymous_pages(len: usize) -> Option<NonNull<u8>> {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice.
    let start =
        unsafe { mmap_anonymous(std::ptr::null_mut(), len, protection, MapFlags::PRIVATE) }.ok()?;
    NonNull::new(start.cast())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_zeroed_on_both_sides_of_the_page_limit() {
        for len in [0, 1, 63, PAGES_FROM - 1, PAGES_FROM, PAGES_FROM + 1] {
            let buffer = Buffer::zeroed(len);
            assert_eq!(buffer.len(), len);
            assert_eq!(buffer.as_ptr() as usize % ALIGNMENT, 0);
            assert!(buffer.iter().all(|b| *b == 0));
        }
    }

    #[test]
    fn only_a_sole_holder_writes() {
        let mut buffer = Buffer::copy_of(b"abc");
        buffer.as_mut().unwrap()[0] = b'x';
        let slice = buffer.slice(0..2);
        assert_eq!(&slice[..], b"xb");
        assert!(buffer.as_mut().is_none());
        drop(slice);
        assert!(buffer.as_mut().is_some());
        assert!(buffer.into_read_only().as_mut().is_none());
    }

    #[test]
    fn vectors_are_taken_over_without_a_copy() {
        let vector = vec![1_u8, 2, 3];
        let address = vector.as_ptr();
        let buffer = Buffer::from(vector);
        assert_eq!(buffer.as_ptr().cast_const(), address);
        assert_eq!(&buffer[..], [1, 2, 3]);
    }

    #[test]
    fn other_owners_keep_their_bytes_where_they_are() {
        let owner: Arc<[u8]> = Arc::from([1_u8, 2, 3]);
        let mut buffer = Buffer::of(Arc::clone(&owner));
        assert_eq!(buffer.as_ptr().cast_const(), owner.as_ptr());
        assert_eq!(Arc::strong_count(&owner), 2);
        assert!(buffer.as_mut().is_none());
        drop(buffer);
        assert_eq!(Arc::strong_count(&owner), 1);
    }
}

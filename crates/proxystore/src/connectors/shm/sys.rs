//! Mappings: the one place that maps, unmaps and touches mapped memory.
#![expect(unsafe_code, reason = "memory mappings are raw memory")]

use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::fd::AsFd;
use rustix::io::Result;
use rustix::mm::{Advice, MapFlags, MremapFlags, ProtFlags};
use rustix::mm::{madvise, mmap, mmap_anonymous, mremap_fixed, munmap};

/// The size of a page: unit of mappings and of everything in a segment.
pub(crate) const PAGE: usize = 4096;

/// Mapped pages of a file, unmapped on drop. As long as they are mapped, the open file
/// description they were mapped from lives, and with it its lock.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: plain memory without thread affinity; what may be touched when is the business of the
// protocol of segments, and everything here goes through atomics or raw copies.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Shared pages for reading and writing.
    pub(crate) fn shared_writable(file: impl AsFd, offset: u64, len: usize) -> Result<Self> {
        Self::new(file, offset, len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED)
    }

    /// Shared pages for reading.
    pub(super) fn shared(file: impl AsFd, offset: u64, len: usize) -> Result<Self> {
        Self::new(file, offset, len, ProtFlags::READ, MapFlags::SHARED)
    }

    /// Pages for reading and writing, copied where they are written.
    pub(super) fn private(file: impl AsFd, offset: u64, len: usize) -> Result<Self> {
        Self::new(file, offset, len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
    }

    fn new(
        file: impl AsFd,
        offset: u64,
        len: usize,
        protection: ProtFlags,
        flags: MapFlags,
    ) -> Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { mmap(null_mut(), len, protection, flags, file, offset)? };
        let start = NonNull::new(start.cast()).ok_or(rustix::io::Errno::NOMEM)?;
        Ok(Self { start, len })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Address of a byte of the mapping.
    pub(super) fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset <= self.len, "inside the mapping");
        // SAFETY: in bounds, checked above.
        unsafe { self.start.add(offset) }
    }

    /// A word that processes share.
    pub(super) fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.len, "a word of the mapping");
        // SAFETY: aligned and in bounds; these words are only ever accessed atomically.
        unsafe { AtomicU64::from_ptr(self.start.add(offset).as_ptr().cast()) }
    }

    /// Half a word that processes share, on which they can wait.
    pub(crate) fn half_word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.len, "half a word of the mapping");
        // SAFETY: aligned and in bounds; these words are only ever accessed atomically.
        unsafe { AtomicU32::from_ptr(self.start.add(offset).as_ptr().cast()) }
    }

    /// Copies slices one after the other to `offset`. The caller owns these bytes by protocol:
    /// the segment is in state `writing` and it alone is the writer.
    pub(super) fn write(&self, mut offset: usize, slices: &[&[u8]]) {
        for slice in slices {
            assert!(slice.len() <= self.len - offset, "inside the mapping");
            // SAFETY: in bounds; the source is a Rust slice and cannot overlap bytes to which no
            // Rust slice exists while a segment is being written.
            unsafe {
                let target = self.start.add(offset).as_ptr();
                std::ptr::copy_nonoverlapping(slice.as_ptr(), target, slice.len());
            }
            offset += slice.len();
        }
    }

    /// Enters the pages of a range into the page table in one call instead of one fault each.
    /// Only a hint: kernels before 5.14 refuse it.
    pub(super) fn populate(&self, offset: usize, len: usize) {
        let offset_down = offset - offset % PAGE;
        let end = (offset + len).next_multiple_of(PAGE).min(self.len);
        if end <= offset_down {
            return;
        }
        // SAFETY: inside the mapping; only faults pages in.
        let _ = unsafe {
            let start = self.start.add(offset_down).as_ptr().cast();
            madvise(start, end - offset_down, Advice::LinuxPopulateWrite)
        };
    }

    /// Moves the page table elsewhere: the returned mapping has it, this one faults its pages
    /// anew. Whole tables are moved, so that the time hardly depends on the length. Kernels
    /// before 5.13 refuse.
    pub(super) fn move_tables(&self) -> Result<Self> {
        // An address that lies within a table as the old one does, with room for that.
        const TABLE: usize = 2 << 20;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let room = self.len + TABLE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let room_start = unsafe { mmap_anonymous(null_mut(), room, ProtFlags::empty(), flags)? };
        let skip = self.start.addr().get().wrapping_sub(room_start.addr()) % TABLE;
        let target = room_start.wrapping_byte_add(skip);
        let flags = MremapFlags::MAYMOVE | MremapFlags::DONTUNMAP;
        let old = self.start.as_ptr().cast();
        // SAFETY: the target lies in the room made above, which nobody else uses; the old mapping
        // stays in place and shows the same bytes.
        let moved = unsafe { mremap_fixed(old, self.len, self.len, flags, target) };
        // SAFETY: gives back what is left of the room, before and after the target.
        let _ = unsafe {
            let kept = if moved.is_ok() { self.len } else { 0 };
            if skip > 0 {
                let _ = munmap(room_start, skip);
            }
            munmap(target.wrapping_byte_add(kept), room - skip - kept)
        };
        let start = NonNull::new(moved?.cast()).ok_or(rustix::io::Errno::NOMEM)?;
        Ok(Self { start, len: self.len })
    }

    /// Maps the same pages of the file again in place, now private: from here on writes through
    /// any old view stay with this process.
    pub(super) fn make_private(&self, file: impl AsFd, offset: u64) -> Result<()> {
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: replaces exactly this mapping by one of the same pages with the same rights, so
        // that every pointer into it stays valid and reads the same bytes.
        unsafe { mmap(self.start.as_ptr().cast(), self.len, protection, flags, file, offset)? };
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length, and unmapped only here.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moved_tables_show_the_same_bytes_and_private_pages_stay_private() {
        use std::io::Write;
        let mut file = tempfile::tempfile_in("/dev/shm").unwrap();
        let len = 600 * PAGE;
        file.write_all(&vec![1; len]).unwrap();
        let old = Mapping::shared_writable(&file, 0, len).unwrap();
        old.populate(0, len);
        let moved = old.move_tables().unwrap();
        assert_eq!(moved.at(0).addr().get() % (2 << 20), old.at(0).addr().get() % (2 << 20));
        moved.write(0, &[&[2; 9]]);
        assert_eq!(old.word(0).load(std::sync::atomic::Ordering::Relaxed), 0x0202_0202_0202_0202);
        old.make_private(&file, 0).unwrap();
        old.write(8, &[&[3; 8]]);
        assert_eq!(moved.word(8).load(std::sync::atomic::Ordering::Relaxed), 0x0101_0101_0101_0102);
    }
}

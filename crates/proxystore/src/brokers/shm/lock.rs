//! Locks of single bytes of a file, which belong to a process.
//!
//! They die with their process, however it dies, and a forked child has none of them: unlike locks of
//! open file descriptions, which a child would hold on to when its parent was killed. The price is
//! that they do not tell threads apart, and that closing any descriptor of the file gives all of
//! them up; so a process opens each file once ([`handle`](super::handle)).
#![expect(unsafe_code, reason = "byte locks are a call of the C library")]

use std::fs::File;
use std::os::fd::AsRawFd;

use rustix::io::{Errno, Result};

/// Beyond any byte that is ever written; locks need no bytes.
const FIRST: i64 = 1 << 50;

/// The byte whose owner may read and write the file.
pub(super) const ACCESS: usize = 0;

/// The byte that the living subscribers of a group share.
pub(super) fn member(place: usize) -> usize {
    1 + place
}

/// Locks a byte for this process alone; false when another has it.
pub(super) fn try_lock(file: &File, byte: usize) -> Result<bool> {
    match control(file, libc::F_SETLK, libc::F_WRLCK, byte) {
        Ok(_) => Ok(true),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Shares the lock of a byte with other processes.
pub(super) fn share(file: &File, byte: usize) -> Result<()> {
    control(file, libc::F_SETLK, libc::F_RDLCK, byte).map(drop)
}

/// Gives a lock of this process up.
pub(super) fn unlock(file: &File, byte: usize) -> Result<()> {
    control(file, libc::F_SETLK, libc::F_UNLCK, byte).map(drop)
}

/// Whether another process has or shares the lock of a byte.
pub(super) fn is_held_elsewhere(file: &File, byte: usize) -> Result<bool> {
    let found = control(file, libc::F_GETLK, libc::F_WRLCK, byte)?;
    Ok(i32::from(found.l_type) != libc::F_UNLCK)
}

fn control(file: &File, command: i32, kind: i32, byte: usize) -> Result<libc::flock> {
    // SAFETY: plain numbers, for all of which zero is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = i16::try_from(kind).unwrap_or_default();
    lock.l_whence = 0; // counts from the start of the file
    lock.l_start = FIRST.saturating_add_unsigned(byte as u64);
    lock.l_len = 1;
    // SAFETY: the descriptor is open, and the kernel fills in the structure.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) };
    if result == -1 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    Ok(lock)
}

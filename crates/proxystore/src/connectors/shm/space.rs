//! Space: how much may be kept, how to make room, and what to say when there is none.

use rustix::fs;
use rustix::io::Errno;

use super::pool::Pool;
use super::session::{Session, io};
use super::sweep::{reclaim, sweep};
use crate::error::{Error, Result};

/// Whether a code means that the file system is full.
fn is_full(errno: Errno) -> bool {
    matches!(errno, Errno::NOSPC | Errno::DQUOT | Errno::FBIG)
}

/// Does `work`; when there is no room, once more after what is free was given back.
pub(super) fn with_room<T>(
    pool: &Pool,
    operation: &'static str,
    size: usize,
    work: impl Fn() -> rustix::io::Result<T>,
) -> Result<T> {
    let failed = |errno| error(&pool.session, operation, size, errno);
    match work() {
        Err(errno) if is_full(errno) => {}
        done => return done.map_err(failed),
    }
    let _ = reclaim(&pool.session); // whatever it could give back may be enough
    if let Some(root) = pool.session.path.parent().and_then(|user| user.parent()) {
        let _ = sweep(Some(root));
    }
    work().map_err(failed)
}

/// The error for a code; one that says what to do when the file system is full.
pub(super) fn error(
    session: &Session,
    operation: &'static str,
    size: usize,
    errno: Errno,
) -> Error {
    let error = io(operation, errno).with("size", size).with("directory", session.path.display());
    if !is_full(errno) {
        return error;
    }
    let error = match fs::fstatvfs(&session.dir) {
        Ok(stat) => {
            let total = stat.f_blocks * stat.f_frsize;
            let free = stat.f_bavail * stat.f_frsize;
            error.with("shared memory", total).with("used", total - free)
        }
        Err(_) => error,
    };
    error.with_hint(
        "evict objects that are done with, give the container more (docker run --shm-size, or an \
         emptyDir with medium Memory on /dev/shm), or choose another tmpfs with '?root=/path' in \
         the URL",
    )
}

/// How much freed memory a process keeps: an eighth of the file system, and at most 2 GiB.
pub(super) fn default_pool(session: &Session) -> u64 {
    const MOST: u64 = 2 << 30;
    fs::fstatvfs(&session.dir).map_or(MOST, |stat| (stat.f_blocks * stat.f_frsize / 8).min(MOST))
}

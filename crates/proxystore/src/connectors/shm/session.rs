//! Sessions: the directory objects live in, for as long as anybody holds its lock.
//!
//! Every process that uses a session holds `LOCK_SH` on its file `lock`; so do forked children,
//! through the description they inherit. What nobody holds may be swept. The lock file's inode is
//! compared after locking, since a sweep may have replaced it in between.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::fs::{self, AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::owner::Neighbour;
use crate::error::{Error, ErrorKind, Result};

pub(super) const LOCK: &str = "lock";
pub(super) const KEYS: &str = "keys";
pub(super) const PERSIST: &str = "persist";

const OPEN: &str = "open a shared-memory session";
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::RDONLY).union(OFlags::CLOEXEC);
const PRIVATE_DIRECTORY: Mode = Mode::RWXU;
const OTHERS: Mode = Mode::RWXG.union(Mode::RWXO);
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);

/// An open session; dropping it lets go of the lock.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) path: PathBuf,
    pub(crate) dir: OwnedFd,
    /// The directory of links from keys made in advance to objects.
    pub(super) keys: OwnedFd,
    /// The last other owner whose segment was freed here.
    pub(super) neighbour: Mutex<Option<Neighbour>>,
    _lock: OwnedFd,
}

impl Session {
    /// Joins the session `name` below `root`, making it first where needed.
    pub(crate) fn open(root: &Path, name: &str, persist: bool) -> Result<Self> {
        let user = user_directory(root);
        make_private_directory(&user)?;
        let path = user.join(name);
        loop {
            make_private_directory(&path)?;
            match Self::join(&path, persist) {
                Ok(Some(session)) => return Ok(session),
                // A sweep is at work on it; it takes no longer than removing its files.
                Ok(None) | Err(Errno::NOENT) => std::thread::sleep(Duration::from_micros(200)),
                Err(errno) => return Err(io(OPEN, errno).with("directory", path.display())),
            }
        }
    }

    /// Joins the session in a directory; `None` when it is just being swept.
    pub(super) fn join(path: &Path, persist: bool) -> rustix::io::Result<Option<Self>> {
        let dir = fs::open(path, DIRECTORY, Mode::empty())?;
        let Some(lock) = lock_session(&dir, FlockOperation::NonBlockingLockShared)? else {
            return Ok(None);
        };
        if persist {
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            fs::openat(&dir, PERSIST, flags, PRIVATE_FILE)?;
        }
        match fs::mkdirat(&dir, KEYS, PRIVATE_DIRECTORY) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        let keys = fs::openat(&dir, KEYS, DIRECTORY, Mode::empty())?;
        Ok(Some(Self {
            path: path.to_owned(),
            dir,
            keys,
            neighbour: Mutex::default(),
            _lock: lock,
        }))
    }

    /// Makes a new file of the session.
    pub(super) fn create(&self, name: &str) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        fs::openat(&self.dir, name, flags, PRIVATE_FILE)
    }

    /// Opens a file of the session that may not be there yet; it is empty then.
    pub(crate) fn open_or_create(&self, name: &str) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        fs::openat(&self.dir, name, flags, PRIVATE_FILE)
    }

    /// Opens a file of the session; a description of its own, and so an owner of locks.
    pub(super) fn open_file(&self, name: &str, access: OFlags) -> rustix::io::Result<OwnedFd> {
        open_file(&self.dir, name, access)
    }

    pub(super) fn remove(&self, name: &str) -> rustix::io::Result<()> {
        fs::unlinkat(&self.dir, name, AtFlags::empty())
    }
}

pub(super) fn open_file(dir: &OwnedFd, name: &str, access: OFlags) -> rustix::io::Result<OwnedFd> {
    fs::openat(dir, name, access | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
}

/// Opens the lock file of a session and locks it; `None` when others hold it, or when it was
/// replaced meanwhile.
pub(super) fn lock_session(
    dir: &OwnedFd,
    operation: FlockOperation,
) -> rustix::io::Result<Option<OwnedFd>> {
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
    let lock = fs::openat(dir, LOCK, flags, PRIVATE_FILE)?;
    match fs::flock(&lock, operation) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(errno) => return Err(errno),
    }
    let ours = fs::fstat(&lock)?;
    match fs::statat(dir, LOCK, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(current) if current.st_ino == ours.st_ino && ours.st_nlink > 0 => Ok(Some(lock)),
        Ok(_) | Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Where sessions are by default.
pub(super) fn default_root() -> PathBuf {
    PathBuf::from("/dev/shm")
}

/// The one directory of this user below a root.
pub(in crate::connectors) fn user_directory(root: &Path) -> PathBuf {
    root.join(format!("proxystore-{}", rustix::process::geteuid().as_raw()))
}

/// Makes a directory only we may enter, or makes sure that an existing one is such: below a
/// directory everybody may write to, somebody else could have made it first.
pub(in crate::connectors) fn make_private_directory(path: &Path) -> Result<()> {
    let at = |errno| io(OPEN, errno).with("directory", path.display());
    match fs::mkdir(path, PRIVATE_DIRECTORY) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(at(errno)),
    }
    let stat = match fs::lstat(path) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(()), // swept; the caller tries again
        Err(errno) => return Err(at(errno)),
    };
    let ours = stat.st_uid == rustix::process::geteuid().as_raw();
    let is_directory = fs::FileType::from_raw_mode(stat.st_mode) == fs::FileType::Directory;
    if is_directory && ours && Mode::from_raw_mode(stat.st_mode).intersection(OTHERS).is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Permission, OPEN, "the directory is not private to this user")
        .with("directory", path.display())
        .with_hint("remove it, or choose another place with '?root=/path' in the URL"))
}

/// Refuses file systems on which pins and mappings do not work, such as network ones.
pub(crate) fn check_file_system(root: &Path) -> Result<()> {
    const LOCAL: [u64; 6] =
        [0x0102_1994, 0x8584_58f6, 0xef53, 0x5846_5342, 0x9123_683e, 0x794c_7630];
    let stat = fs::statfs(root).map_err(|errno| io(OPEN, errno).with("root", root.display()))?;
    let kind = u64::try_from(stat.f_type).unwrap_or_default() & 0xffff_ffff;
    if LOCAL.contains(&kind) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Config, OPEN, "the file system is not known to be local")
        .with("root", root.display())
        .with("type", format_args!("{kind:#x}"))
        .with_hint("choose a root on tmpfs, such as /dev/shm"))
}

/// An error of this connector for a code of the operating system.
pub(crate) fn io(operation: &'static str, errno: Errno) -> Error {
    Error::io(operation, errno.into())
}

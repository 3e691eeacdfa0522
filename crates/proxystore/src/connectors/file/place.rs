//! The directory of a channel: its URL, its file system, its errors, and what lies in it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::expiry;
use super::write::is_dead;
use crate::connectors::{ConnectorConfig, percent};
use crate::error::{Error, ErrorKind, Result};
use crate::key::check_id;

const OPEN: &str = "open a file connector";

/// The subdirectory in which objects are written before they are published.
pub(super) const WRITING: &str = ".writing";

/// A directory of objects.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// On a file system of this host alone: mapping and events can be relied on.
    pub(super) is_local: bool,
}

impl Place {
    /// The directory, made absolute, created if need be, and cleared of what dead writers left and
    /// of expired objects.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path)
            .map_err(|source| Error::io(OPEN, source).with("path", path.display()))?;
        // Without `.` and trailing slashes, so that equal directories have equal URLs.
        let path: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
        let mut place = Self { path, is_local: false };
        place.create(OPEN)?;
        place.is_local = is_local(&place.path);
        place.remove_dead_temps().map_err(|source| place.error(OPEN, source))?;
        let _ = expiry::sweep(&place); // they are absent anyway, and objects may be read-only here
        Ok(place)
    }

    /// From a `file:` URL.
    pub(super) fn from_url(url: &str) -> Result<Self> {
        let path = path_of(url).map_err(|(cause, hint)| {
            Error::new(ErrorKind::Config, OPEN, cause).with("url", url).with_hint(hint)
        })?;
        Self::open(&path)
    }

    /// Its configuration without options.
    pub(super) fn config(&self) -> ConnectorConfig {
        let path = self.path.as_os_str().as_bytes();
        ConnectorConfig::new(format!("file://{}", percent::encode(path, percent::keeps_path)))
    }

    /// Makes sure that the directory is there.
    pub(super) fn create(&self, operation: &'static str) -> Result<()> {
        fs::create_dir_all(&self.path).map_err(|source| self.error(operation, source))
    }

    /// The file of an object.
    pub(super) fn file(&self, id: &str) -> PathBuf {
        self.path.join(id)
    }

    /// An error of the operating system, with the directory and what to do about it.
    pub(super) fn error(&self, operation: &'static str, source: io::Error) -> Error {
        use io::ErrorKind as Io;
        let error = match source.kind() {
            Io::AlreadyExists | Io::NotADirectory => {
                Error::new(ErrorKind::Config, operation, "the path is not a directory")
                    .with_source(source)
                    .with_hint("give the path of a directory, or remove the file that is there")
            }
            Io::ReadOnlyFilesystem => Error::io(operation, source)
                .with_hint("objects can be read there, but not stored or evicted"),
            Io::PermissionDenied => Error::io(operation, source)
                .with_hint("give this user the right to read, write and enter the directory"),
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => Error::io(operation, source)
                .with_hint("evict objects, free space or raise the quota there"),
            Io::StaleNetworkFileHandle => Error::io(operation, source)
                .with_hint("the directory was replaced on its server; open the store again"),
            _ => Error::io(operation, source),
        };
        error.with("path", self.path.display())
    }

    /// Removes what writers that died left half written.
    fn remove_dead_temps(&self) -> io::Result<()> {
        let entries = match fs::read_dir(self.path.join(WRITING)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(file) = File::options().read(true).write(true).open(&path) else {
                continue; // published or removed meanwhile, or another user's
            };
            if is_dead(&file, self.is_local) {
                let _ = fs::remove_file(&path); // under its lock; may be gone already
            }
        }
        Ok(())
    }

    /// Removes the files for which `is_object` holds, and the directory if nothing else is in it.
    pub(super) fn clear(&self, is_object: impl Fn(&Path) -> bool) -> io::Result<()> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let is_named_like_one = entry.file_name().to_str().is_some_and(|n| check_id(n).is_ok());
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            if is_named_like_one && is_file && is_object(&entry.path()) {
                match fs::remove_file(entry.path()) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        self.remove_dead_temps()?;
        let _ = fs::remove_file(self.path.join(expiry::MARK)); // may never have been there
        // Both fail when something of somebody else's is in there, which is how it should be.
        let _ = fs::remove_dir(self.path.join(WRITING));
        let _ = fs::remove_dir(&self.path);
        Ok(())
    }
}

/// The path in a `file:` URL, or what is wrong with it and what to do.
fn path_of(url: &str) -> Result<PathBuf, (&'static str, &'static str)> {
    const FORM: &str = "write file:///absolute/directory";
    let place = url.strip_prefix("file:").ok_or(("the URL does not start with file:", FORM))?;
    let path = match place.strip_prefix("//") {
        None => place,
        Some(rest) => match rest.strip_prefix("localhost").unwrap_or(rest) {
            path if path.starts_with('/') => path,
            _ => {
                return Err((
                    "the URL names a host",
                    "write three slashes, file:///absolute/directory, or file:relative/directory",
                ));
            }
        },
    };
    if path.contains(['?', '#']) {
        return Err((
            "the URL has a query or a fragment",
            "give settings as options; in a path, write %3F for '?' and %23 for '#'",
        ));
    }
    let damaged = ("a percent sign is not followed by two digits", "write %25 for '%'");
    let decoded = percent::decode(path).ok_or(damaged)?;
    match decoded.as_slice() {
        [] => Err(("the URL names no directory", FORM)),
        path if path.contains(&0) => Err(("the path has a zero byte", FORM)),
        path => Ok(PathBuf::from(OsStr::from_bytes(path))),
    }
}

/// Whether a directory is on a file system that no other host changes.
///
/// A mapping of a network file system dies with SIGBUS when another host cuts the file short, and
/// its events are those of this host only. What is not known to be local is taken as remote.
#[cfg(target_os = "linux")]
fn is_local(path: &Path) -> bool {
    const LOCAL: [u64; 9] = [
        0xEF53,      // ext2, ext3, ext4
        0x5846_5342, // xfs
        0x9123_683E, // btrfs
        0x0102_1994, // tmpfs
        0x8584_58F6, // ramfs
        0x2FC1_2FC1, // zfs
        0xF2F5_2010, // f2fs
        0xCA45_1A4E, // bcachefs
        0x794C_7630, // overlayfs, whose upper layer is local: the kernel refuses network ones
    ];
    // Some platforms have a signed, some a narrower field; the numbers have 32 bits.
    #[expect(clippy::cast_sign_loss, reason = "a bit pattern")]
    rustix::fs::statfs(path).is_ok_and(|stat| LOCAL.contains(&(stat.f_type as u64 & 0xFFFF_FFFF)))
}

#[cfg(not(target_os = "linux"))]
fn is_local(_path: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_directories() {
        for (url, path) in [
            ("file:///scratch/run7", "/scratch/run7"),
            ("file:/scratch/run7/", "/scratch/run7/"),
            ("file://localhost/scratch", "/scratch"),
            ("file:relative/run7", "relative/run7"),
            ("file:///a%20b/%C3%A9%25", "/a b/é%"),
            ("file:///a+b/ü", "/a+b/ü"),
        ] {
            assert_eq!(path_of(url), Ok(PathBuf::from(path)), "{url}");
        }
        for url in [
            "file:",
            "file://",
            "file://host/dir",
            "file://dir",
            "memory://x",
            "file:///a?clear=1",
            "file:///a#b",
            "file:///%4",
            "file:///%zz",
            "file:///%00",
            "file:///%",
            "",
        ] {
            assert!(path_of(url).is_err(), "{url}");
        }
    }
}

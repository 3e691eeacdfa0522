//! Times to live: where a bit of its mode says so, a file's modification time is the expiry.
//!
//! Both come with what a reader asks about the file anyway. The bit is the sticky bit, which has no
//! meaning for files. A file in `DIR/.expiring` tells whether there is anything to sweep.

use std::fs::{self, File, FileTimes, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::place::Place;
use super::read::{live_trailer_of, trailer_of};
use super::write::Current;
use crate::connectors::expiry::Expiry;
use crate::key::{Key, check_id};

/// The file that is there when objects have times to live.
pub(super) const MARK: &str = ".expiring";

const EXPIRES: u32 = 0o1000;

/// When the object in a file vanishes.
pub(super) fn of(about: &Metadata) -> Expiry {
    if about.mode() & EXPIRES == 0 {
        return Expiry::NEVER;
    }
    let millis = about.mtime().saturating_mul(1000).saturating_add(about.mtime_nsec() / 1_000_000);
    Expiry::at(u64::try_from(millis).unwrap_or_default())
}

/// Lets the object in a file vanish then.
pub(super) fn set(file: &File, expiry: Expiry) -> io::Result<()> {
    let mode = file.metadata()?.mode() & 0o7777;
    if expiry == Expiry::NEVER {
        return match mode & EXPIRES {
            0 => Ok(()),
            _ => file.set_permissions(Permissions::from_mode(mode & !EXPIRES)),
        };
    }
    // First the time, or else the bit would speak of the wrong one for a moment.
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(expiry.word());
    file.set_times(FileTimes::new().set_modified(time))?;
    if mode & EXPIRES == 0 {
        file.set_permissions(Permissions::from_mode(mode | EXPIRES))?;
        if file.metadata()?.mode() & EXPIRES == 0 {
            return Err(io::ErrorKind::Unsupported.into()); // such as FAT
        }
    }
    Ok(())
}

/// The same for the object that is in place, unless it is another generation or expired already.
pub(super) fn renew(current: &Current, key: &Key, expiry: Expiry) -> io::Result<()> {
    match live_trailer_of(&current.file)? {
        Some(Ok(trailer)) if trailer.is_of(key) => set(&current.file, expiry),
        _ => Ok(()),
    }
}

/// Tells all that open the directory from now on that there is something to sweep.
pub(super) fn mark(place: &Place) -> io::Result<()> {
    match File::create_new(place.file(MARK)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}

/// Removes the expired objects of a directory.
pub(super) fn sweep(place: &Place) -> io::Result<()> {
    if !place.file(MARK).try_exists()? {
        return Ok(());
    }
    for entry in fs::read_dir(&place.path)? {
        let entry = entry?;
        let is_named_like_one = entry.file_name().to_str().is_some_and(|n| check_id(n).is_ok());
        let is_expired = |about: Metadata| about.is_file() && of(&about).is_past();
        if is_named_like_one && entry.metadata().is_ok_and(is_expired) {
            let _ = remove_expired(&entry.path()); // it is absent anyway, and others may be removable
        }
    }
    Ok(())
}

/// Removes an object under its lock, or else it could be renewed or replaced in between.
fn remove_expired(path: &Path) -> io::Result<()> {
    if let Some(current) = Current::lock(path)?
        && of(&current.file.metadata()?).is_past()
        && trailer_of(&current.file)?.is_ok()
    {
        fs::remove_file(path)?;
    }
    Ok(())
}

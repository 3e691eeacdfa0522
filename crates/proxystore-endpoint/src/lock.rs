//! The right to run an endpoint: a lock on its file of the process, which dies with the process.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::Duration;

use proxystore::{Error, ErrorKind, Result};
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::directory::Directory;

const START: &str = "start an endpoint";

/// The lock, as long as it is kept.
#[derive(Debug)]
pub struct Lock(File);

/// Who holds the lock of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// The host of the process.
    pub host: String,
}

impl Lock {
    /// Takes the lock of an endpoint.
    ///
    /// # Errors
    /// When it runs already, and when the file cannot be written.
    pub fn take(directory: &Directory) -> Result<Self> {
        let path = directory.pid_file();
        let failed = |error| Error::io(START, error).with("file", path.display());
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        let exclusive = FlockOperation::NonBlockingLockExclusive;
        if !locked(&file, exclusive).map_err(|error| cannot_lock(failed(error)))? {
            let mut error = Error::new(ErrorKind::Config, START, "it runs already");
            if let Some(holder) = read_holder(&mut file) {
                error = error.with("process", holder.pid).with("host", holder.host);
            }
            return Err(error.with("directory", directory.path().display()).with_hint(
                "nothing has to be done; `proxystore endpoint restart` stops it and starts it anew",
            ));
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
        writeln!(file, "{}\n{}", std::process::id(), host_name()).map_err(failed)?;
        Ok(Self(file))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.set_len(0); // nobody runs: the lock would say so too
    }
}

/// Who runs the endpoint, if somebody does.
pub fn holder(directory: &Directory) -> Option<Holder> {
    let mut file = File::open(directory.pid_file()).ok()?;
    let holder = read_holder(&mut file)?;
    // Who has this lock for an instant looks, as we do; see `locked`.
    let held = rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared);
    (held == Err(Errno::WOULDBLOCK)).then_some(holder)
}

/// Takes a lock that others may hold for an instant, to see whether somebody runs; false when they keep it.
///
/// # Errors
/// When there are no locks there.
pub(crate) fn locked(file: &File, how: FlockOperation) -> io::Result<bool> {
    for attempt in 0..5 {
        match rustix::fs::flock(file, how) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => thread::sleep(Duration::from_millis(attempt * 5)),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(false)
}

/// What helps where there are no locks.
pub(crate) fn cannot_lock(error: Error) -> Error {
    error.with_hint(
        "its file system may not lock files; set PROXYSTORE_HOME, or `dir` in section [storage], to a local directory",
    )
}

fn read_holder(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    let (pid, host) = text.trim().split_once('\n')?;
    Some(Holder { pid: pid.parse().ok()?, host: host.to_owned() })
}

/// What this host is called.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, OFlags, open};

    use super::*;

    #[test]
    fn where_nothing_can_be_locked_nobody_is_said_to_run() {
        let dir = tempfile::tempdir().unwrap();
        let how = FlockOperation::NonBlockingLockExclusive;
        let path = dir.path().join("file");
        let file = File::create(&path).unwrap();
        assert!(locked(&file, how).unwrap());
        assert!(!locked(&File::open(&path).unwrap(), how).unwrap(), "another has it");
        // A descriptor that cannot be locked, as on some file systems none can.
        let unlockable: File = open(&path, OFlags::PATH, Mode::empty()).unwrap().into();
        let error = cannot_lock(Error::io(START, locked(&unlockable, how).unwrap_err()));
        assert!(error.to_string().contains("local directory"), "{error}");
    }
}

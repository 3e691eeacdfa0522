//! Where a daemon tells what happens: a file that does not grow without end, or standard error.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use proxystore::{Error, ErrorKind, Result};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// From this length on, bytes, a log is put aside, over the one that was put aside before.
const LONGEST: u64 = 16 << 20;

/// Tells what happens from now on, at this level: to a file, or to standard error where there is none.
///
/// # Errors
/// When the level is none, or the file cannot be written.
pub(crate) fn begin(file: Option<&Path>, level: &str, json: bool) -> Result<()> {
    const BEGIN: &str = "begin the log";
    let filter = EnvFilter::try_new(level).map_err(|source| {
        Error::new(ErrorKind::Config, BEGIN, "this is no level")
            .with("level", format_args!("{level:?}"))
            .with_hint(
                "use error, warn, info, debug or trace, or directives such as info,iroh=debug",
            )
            .with_source(source)
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    let begun = match file {
        None if json => builder.with_writer(io::stderr).json().try_init(),
        None => builder.with_writer(io::stderr).try_init(),
        Some(path) => {
            let log = Log::open(path.to_owned())
                .map_err(|error| Error::io(BEGIN, error).with("file", path.display()))?;
            if json {
                builder.with_writer(log).json().try_init()
            } else {
                builder.with_writer(log).try_init()
            }
        }
    };
    begun.map_err(|source| {
        Error::new(ErrorKind::Config, BEGIN, "there is one in this process").with_source(source)
    })
}

/// The file of a log, opened so that several may append to it.
///
/// # Errors
/// When it cannot be opened.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// A log that is put aside when it is long.
struct Log(Mutex<Written>);

struct Written {
    path: PathBuf,
    file: File,
    len: u64,
}

impl Log {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = open(&path)?;
        let len = file.metadata()?.len();
        Ok(Self(Mutex::new(Written { path, file, len })))
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len >= LONGEST {
            fs::rename(&log.path, log.path.with_extension("old.txt"))?;
            *log = Written { path: log.path.clone(), file: open(&log.path)?, len: 0 };
        }
        log.file.write_all(line)?;
        log.len += line.len() as u64;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.txt");
        let log = Log::open(path.clone()).unwrap();
        let line = vec![b'x'; 1 << 20];
        for _ in 0..40 {
            (&log).write_all(&line).unwrap();
        }
        let len = |path: &Path| fs::metadata(path).unwrap().len();
        assert_eq!(len(&dir.path().join("log.old.txt")), LONGEST);
        assert_eq!(len(&path), 8 << 20);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}

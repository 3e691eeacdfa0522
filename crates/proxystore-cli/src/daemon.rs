//! The daemon of an endpoint as a process: in the foreground, or on its own.
//!
//! One on its own is this program again, with arguments that nobody types. It leaves its session, and tells through
//! its standard output, a pipe to whoever started it, that it is ready, or why it is not.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use proxystore::wire::Fault;
use proxystore::{Error, ErrorKind, Result};
use proxystore_endpoint::daemon;
use proxystore_endpoint::directory::Directory;
use tracing::{error, warn};

use crate::{client, log, output, process};

const START: &str = "start an endpoint";
/// What a daemon on its own is called with, before its directory and its level.
const ALONE: &str = "--alone";
const READY: &str = "ready\n";

/// Runs the endpoint of a directory until it is told to stop, and logs to standard error.
pub(crate) fn foreground(directory: &Directory, level: Option<&str>) -> Result<ExitCode> {
    let config = directory.config()?;
    log::begin(None, level.unwrap_or(&config.log.level), config.log.json)?;
    run(directory, || {})
}

/// Starts the endpoint of a directory on its own, and waits so long until it is ready.
pub(crate) fn detached(
    directory: &Directory,
    level: Option<&str>,
    patience: Duration,
) -> Result<()> {
    let failed = |error| Error::io(START, error).with("directory", directory.path().display());
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.arg(ALONE).arg(directory.path()).args(level);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(log::open(&directory.log_file()).map_err(failed)?);
    let mut child = command.spawn().map_err(failed)?;
    let mut words = child.stdout.take().ok_or_else(|| failed(std::io::ErrorKind::Other.into()))?;
    let (tell, told) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let mut text = String::new();
        let _ = words.read_to_string(&mut text); // what came until then counts
        let _ = tell.send(text);
    });
    let started = Instant::now();
    let text = loop {
        match told.recv_timeout(Duration::from_secs(3)) {
            Ok(text) => break text,
            Err(RecvTimeoutError::Timeout) if started.elapsed() < patience => {
                output::note("it is starting ...");
            }
            Err(_) => {
                return Err(Error::new(ErrorKind::Timeout, START, "it is still starting")
                    .with("process", child.id())
                    .with("log", directory.log_file().display())
                    .with_hint("wait for it with `proxystore endpoint status`, or stop it"));
            }
        }
    };
    if text == READY {
        return Ok(());
    }
    let _ = child.wait(); // it closed its output, and ends
    match serde_json::from_str::<Fault>(&text) {
        Ok(fault) => Err(fault.into_error(START)),
        Err(_) => Err(Error::new(ErrorKind::Closed, START, "it ended before it was ready")
            .with("log", directory.log_file().display())
            .with_hint("its log says why")),
    }
}

/// Runs as a daemon on its own, if these are the arguments of one.
pub(crate) fn child(args: &[OsString]) -> Option<ExitCode> {
    let [_, alone, directory, level @ ..] = args else { return None };
    if alone != ALONE {
        return None;
    }
    let directory = Directory::at(PathBuf::from(directory));
    let level = level.first().and_then(|level| level.to_str());
    let _ = rustix::process::setsid(); // it fails where there is no session to leave
    Some(alone_with(&directory, level).unwrap_or_else(|error| {
        error!("{error}");
        output::raw(&serde_json::to_vec(&Fault::of(&error)).unwrap_or_default());
        ExitCode::FAILURE
    }))
}

fn alone_with(directory: &Directory, level: Option<&str>) -> Result<ExitCode> {
    let config = directory.config()?;
    log::begin(Some(&directory.log_file()), level.unwrap_or(&config.log.level), config.log.json)?;
    run(directory, || {
        output::raw(READY.as_bytes());
        // The pipe ends, so that whoever reads it is not kept waiting.
        let nowhere = File::options().write(true).open("/dev/null");
        if let Err(error) = nowhere.and_then(|file| Ok(rustix::stdio::dup2_stdout(file)?)) {
            warn!(%error, "standard output stays open");
        }
    })
}

fn run(directory: &Directory, ready: impl FnOnce()) -> Result<ExitCode> {
    // Relative paths in its file are relative to that file, wherever it was started.
    std::env::set_current_dir(directory.path())
        .map_err(|error| Error::io(START, error).with("directory", directory.path().display()))?;
    let read_again = || {
        let directory = directory.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = client::reload(&directory) {
                warn!(%error, "nothing changed");
            }
        });
    };
    process::until_signal(START, read_again, async |stop| {
        daemon::run(directory, stop, |_| ready()).await
    })
}

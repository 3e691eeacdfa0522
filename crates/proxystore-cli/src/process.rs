//! What runs until it is told to stop.

use std::process::ExitCode;

use proxystore::{Error, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Runs work until it is done. The first SIGTERM or SIGINT tells it to stop, the second stops it at once.
/// SIGHUP is for `hung_up`.
///
/// # Errors
/// Those of the work.
pub(crate) fn until_signal(
    operation: &'static str,
    hung_up: impl Fn(),
    work: impl AsyncFnOnce(CancellationToken) -> Result<()>,
) -> Result<ExitCode> {
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::io(operation, error))?;
    let done = runtime.block_on(async {
        let stop = CancellationToken::new();
        tokio::select! {
            done = work(stop.clone()) => Some(done),
            failed = signals(stop, hung_up) => failed.err().map(|error| Err(Error::io(operation, error))),
        }
    });
    runtime.shutdown_background();
    if done.is_none() {
        warn!("stopped at once");
    }
    done.map_or(Ok(ExitCode::FAILURE), |done| done.map(|()| ExitCode::SUCCESS))
}

/// Lets this process have as many files open as it may: many systems begin with 1024, for the sake of old programs.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }); // the doctor says what that means
}

/// Stops at the first signal; is done at the second.
async fn signals(stop: CancellationToken, hung_up: impl Fn()) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = hang_up.recv() => {
                hung_up();
                continue;
            }
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if stop.is_cancelled() {
            return Ok(());
        }
        info!("stopping; a second signal stops at once");
        stop.cancel();
    }
}

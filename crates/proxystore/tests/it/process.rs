//! Tests that need a second process: this binary starts itself again to run one test of its own.

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

const ROLE: &str = "PROXYSTORE_TEST_ROLE";

/// A command that runs the test `role` in a process of its own, handing it `argument`.
pub(crate) fn command(role: &str, argument: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", role, "--nocapture", "--test-threads=1"]);
    command.env(ROLE, argument).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What this process was started for; `None` in an ordinary run, where a role does nothing.
pub(crate) fn argument() -> Option<String> {
    env::var(ROLE).ok()
}

/// The lines a role printed; panics unless it ended well.
#[track_caller]
pub(crate) fn finish(child: Child) -> Vec<String> {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}, signal {:?}\n{text}\n{errors}",
        output.status,
        output.status.signal()
    );
    text.lines().map(str::to_owned).collect()
}

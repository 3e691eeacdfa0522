//! The command `proxystore-relay`, as the Python original has it.

use std::process::ExitCode;

fn main() -> ExitCode {
    proxystore_cli::upstream::relay(std::env::args_os())
}

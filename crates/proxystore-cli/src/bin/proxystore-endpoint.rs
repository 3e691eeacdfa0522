//! The command `proxystore-endpoint`, as the Python original has it.

use std::process::ExitCode;

fn main() -> ExitCode {
    proxystore_cli::upstream::endpoint(std::env::args_os())
}

//! The command `proxystore-endpoint`, as the Python original has it: `proxystore` by another name.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args = std::env::args_os().skip(1);
    proxystore_cli::run(std::iter::once("proxystore-endpoint".into()).chain(args))
}

//! The command `proxystore`: endpoints, relays, and what keeps them from reaching each other.
//!
//! Data goes to standard output, words for people to standard error. The exit code is 0 when all is
//! well, 1 when something failed, 2 when the command was not understood.

mod client;
mod daemon;
mod endpoint;
mod log;
mod output;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use proxystore::connectors::endpoint::home::home_dir;

/// Runs the command with these arguments; the first is the name of the program.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    if let Some(child) = daemon::child(&args) {
        return child;
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return output::usage(&error),
    };
    let home = cli.home.unwrap_or_else(home_dir);
    let done = std::path::absolute(&home)
        .map_err(|error| proxystore::Error::io("find the home directory", error))
        .and_then(|home| match cli.command {
            Command::Endpoint(command) => endpoint::run(&home, command),
        });
    match done {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Endpoints that exchange objects between sites, and relays where they meet.
#[derive(Debug, Parser)]
#[command(name = "proxystore", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    /// The directory with this user's endpoints [default: $PROXYSTORE_HOME, else
    /// ~/.local/share/proxystore]
    #[arg(long, global = true, value_name = "DIR")]
    home: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Endpoints of this site: configure, start, look at, stop
    #[command(subcommand, visible_alias = "ep")]
    Endpoint(endpoint::Command),
}

const EXAMPLES: &str = "\
Examples:
  proxystore endpoint configure site-a --relay https://relay.example.org:8701
  proxystore endpoint start site-a
  proxystore endpoint list";

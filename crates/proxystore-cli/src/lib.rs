//! The command `proxystore`: endpoints, relays, and what keeps them from reaching each other.
//!
//! Data goes to standard output, words for people to standard error. The exit code is 0 when all is
//! well, 1 when something failed, 2 when the command was not understood.

mod client;
mod daemon;
mod doctor;
mod endpoint;
mod log;
mod manual;
mod output;
mod process;
mod relay;
mod upstream;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use proxystore::connectors::endpoint::home::home_dir;
use proxystore::{Error, Result};

/// Runs the command that these arguments begin with, as the name of the program or a path to it: `proxystore-endpoint`,
/// `proxystore-relay`, and `proxystore` by any other name.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let name = args.first().and_then(|program| Path::new(program).file_name());
    match name.and_then(OsStr::to_str) {
        Some("proxystore-endpoint") => upstream::endpoint(args),
        Some("proxystore-relay") => upstream::relay(args),
        _ => proxystore(args),
    }
}

fn proxystore(args: Vec<OsString>) -> ExitCode {
    begin::<Cli>(args, |cli, home| match cli.command {
        Command::Endpoint(command) => endpoint::run(home, *command),
        Command::Relay(args) => relay::relay(home, &args),
        Command::Doctor(args) => doctor::doctor(home, &args),
        Command::Completions(args) => Ok(manual::completions(&args, Cli::command())),
        Command::Man(args) => manual::man(&args, Cli::command()),
    })
}

/// Reads arguments, and does what they say with the home of the project.
fn begin<C: Parser + Home>(
    args: Vec<OsString>,
    act: impl FnOnce(C, &Path) -> Result<ExitCode>,
) -> ExitCode {
    if let Some(child) = daemon::child(&args) {
        return child;
    }
    let cli = match C::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return output::usage(&error),
    };
    let home = std::path::absolute(cli.home().unwrap_or_else(home_dir))
        .map_err(|error| Error::io("find the home directory", error));
    home.and_then(|home| act(cli, &home)).unwrap_or_else(|error| {
        output::error(&error);
        ExitCode::FAILURE
    })
}

/// Arguments that may say where the home of the project is.
trait Home {
    fn home(&self) -> Option<PathBuf> {
        None
    }
}

impl Home for Cli {
    fn home(&self) -> Option<PathBuf> {
        self.home.clone()
    }
}

/// Endpoints that exchange objects between sites, and relays where they meet.
#[derive(Debug, Parser)]
#[command(name = "proxystore", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    /// The directory with this user's endpoints [default: `$PROXYSTORE_HOME`, else
    /// `~/.local/share/proxystore`]
    #[arg(long, global = true, value_name = "DIR")]
    home: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Endpoints of this site: configure, start, look at, stop
    #[command(subcommand, visible_alias = "ep")]
    Endpoint(Box<endpoint::Command>),
    /// Run a relay, where endpoints meet that cannot reach each other
    Relay(relay::Relay),
    /// Look for what keeps endpoints from working, and say what to do about it
    Doctor(doctor::Doctor),
    /// Print a script that completes commands in a shell
    Completions(manual::Completions),
    /// Print the manual page, or write the pages of all commands
    Man(manual::Man),
}

const EXAMPLES: &str = "\
Examples:
  proxystore endpoint configure site-a --relay https://relay.example.org:8443
  proxystore endpoint start site-a
  proxystore endpoint list";

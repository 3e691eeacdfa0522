//! `proxystore endpoint ...`

mod configure;
mod list;
mod run;
mod status;

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use proxystore::connectors::endpoint::home::{Card, endpoints_below};
use proxystore::{Error, ErrorKind, Result};
use proxystore_endpoint::directory::Directory;

/// What can be done with endpoints.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a new endpoint: its key pair, its token and its config.toml
    Configure(configure::Configure),
    /// Start an endpoint, as a process of its own unless told otherwise
    Start(run::Start),
    /// Stop an endpoint, which finishes what it began
    Stop(run::Stop),
    /// Stop an endpoint if it runs, and start it
    Restart(run::Restart),
    /// Show the endpoints of this user
    List(list::List),
    /// Show what an endpoint does
    Status(status::Status),
}

/// Does it.
pub(crate) fn run(home: &Path, command: Command) -> Result<ExitCode> {
    match command {
        Command::Configure(args) => configure::configure(home, &args),
        Command::Start(args) => run::start(home, &args),
        Command::Stop(args) => run::stop(home, &args),
        Command::Restart(args) => run::restart(home, &args),
        Command::List(args) => list::list(home, &args),
        Command::Status(args) => status::status(home, &args),
    }
}

/// The endpoint that somebody means: by name, id or UUID.
///
/// # Errors
/// When there is none, or more than one.
pub(crate) fn find(home: &Path, called: &str) -> Result<(Directory, Card)> {
    let mut all = endpoints_below(home);
    let names: Vec<String> = all.iter().map(|(_, card)| card.name.clone()).collect();
    all.retain(|(_, card)| card.is_called(called));
    match (all.pop(), all.is_empty()) {
        (Some((path, card)), true) => Ok((Directory::at(path), card)),
        (Some(_), false) => Err(unknown(called, home, "there are several of this name")
            .with_hint("say its id: `proxystore endpoint list`")),
        (None, _) if names.is_empty() => Err(unknown(called, home, "there is none yet")
            .with_hint(format!("make it: `proxystore endpoint configure {called}`"))),
        (None, _) => Err(unknown(called, home, "there is none of this name")
            .with_hint(format!("choose one of {}", names.join(", ")))),
    }
}

fn unknown(called: &str, home: &Path, message: &'static str) -> Error {
    Error::new(ErrorKind::NotFound, "find an endpoint", message)
        .with("name", called)
        .with("home", home.display())
}

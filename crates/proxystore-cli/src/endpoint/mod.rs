//! `proxystore endpoint ...`

pub(crate) mod bench;
pub(crate) mod configure;
pub(crate) mod invite;
pub(crate) mod list;
pub(crate) mod objects;
pub(crate) mod ping;
pub(crate) mod remove;
pub(crate) mod run;
pub(crate) mod show;
pub(crate) mod status;
pub(crate) mod trust;

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use proxystore::connectors::endpoint::home::{Card, endpoints_below};
use proxystore::wire::EndpointId;
use proxystore::{Error, ErrorKind, Result};
use proxystore_endpoint::config::Config;
use proxystore_endpoint::directory::Directory;
use proxystore_endpoint::relay::pin::relay_url;

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
    /// Have an endpoint that runs read again who is a peer, as SIGHUP does
    Reload(run::Reload),
    /// Show the endpoints of this user
    List(list::List),
    /// Show what an endpoint does
    Status(status::Status),
    /// Show what an endpoint is told, without its secrets, and how it is reached
    Show(show::Show),
    /// Remove an endpoint that does not run, with its key pair and its objects
    Remove(remove::Remove),
    /// Admit a peer, change what it may do, or admit it no more
    Trust(trust::Trust),
    /// Print what another site needs to become a peer
    Invite(invite::Invite),
    /// See whether an endpoint or a peer answers, by which path, and how fast
    Ping(ping::Ping),
    /// Measure how fast objects go to and come from an endpoint or a peer
    Bench(bench::Bench),
    /// Get, put, look for or evict one object by hand
    Test(objects::Test),
}

/// Does it.
pub(crate) fn run(home: &Path, command: Command) -> Result<ExitCode> {
    match command {
        Command::Configure(args) => configure::configure(home, &args),
        Command::Start(args) => run::start(home, &args),
        Command::Stop(args) => run::stop(home, &args),
        Command::Restart(args) => run::restart(home, &args),
        Command::Reload(args) => run::reload(home, &args),
        Command::List(args) => Ok(list::list(home, &args)),
        Command::Status(args) => status::status(home, &args),
        Command::Show(args) => show::show(home, &args),
        Command::Remove(args) => remove::remove(home, &args),
        Command::Trust(args) => trust::trust(home, &args),
        Command::Invite(args) => invite::invite(home, &args),
        Command::Ping(args) => ping::ping(home, &args),
        Command::Bench(args) => bench::bench(home, &args),
        Command::Test(args) => objects::test(home, &args),
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

/// The id of a peer: as it is written, by what it is called in an endpoint's file, or by the name of an endpoint of
/// this user.
///
/// # Errors
/// When nobody is called so.
pub(crate) fn peer(home: &Path, config: &Config, called: &str) -> Result<EndpointId> {
    if let Ok(id) = called.parse() {
        return Ok(id);
    }
    if let Some(peer) = config.peers.allow.iter().find(|peer| peer.name == called) {
        return peer.id.parse();
    }
    let (_, card) = find(home, called).map_err(|_nobody| {
        Error::new(ErrorKind::NotFound, "find a peer", "nobody is called so")
            .with("peer", called)
            .with_hint(
                "say its id, as `proxystore endpoint show NAME --id` prints it there, or name it: \
                 `proxystore endpoint trust NAME ID --as LABEL`",
            )
    })?;
    card.endpoint()
}

/// The URL of a relay, as an argument.
pub(crate) fn a_relay(text: &str) -> Result<String, String> {
    match relay_url(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("write https://HOST:PORT".into()),
    }
}

fn unknown(called: &str, home: &Path, message: &'static str) -> Error {
    Error::new(ErrorKind::NotFound, "find an endpoint", message)
        .with("name", called)
        .with("home", home.display())
}

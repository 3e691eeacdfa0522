//! `proxystore-endpoint`.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use proxystore::Result;

use super::without_meaning;
use crate::endpoint::configure::{Configure, configure};
use crate::endpoint::list::{List, list};
use crate::endpoint::objects::{Test, test};
use crate::endpoint::remove::{Remove, remove};
use crate::endpoint::run::{Start, Stop, start, stop};
use crate::output;

/// Runs `proxystore-endpoint` with these arguments; the first is the name of the program.
pub(crate) fn run(args: Vec<OsString>) -> ExitCode {
    crate::begin::<Cli>(args, |cli, home| act(home, cli))
}

/// Endpoints of this site. `proxystore endpoint` does the same and more.
#[derive(Debug, Parser)]
#[command(name = "proxystore-endpoint", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    /// How much a daemon logs
    #[arg(long, value_name = "LEVEL", ignore_case = true,
          value_parser = ["error", "warning", "info", "debug"])]
    log_level: Option<String>,
    #[command(subcommand)]
    verb: Verb,
}

impl crate::Home for Cli {}

const EXAMPLES: &str = "\
Examples:
  proxystore-endpoint configure site-a
  proxystore-endpoint start site-a
  proxystore-endpoint test site-a put hello";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a new endpoint
    Configure(Options),
    /// Show the endpoints of this user
    List,
    /// Remove an endpoint that does not run
    Remove {
        /// Its name
        name: String,
    },
    /// Start an endpoint
    Start {
        /// Its name
        name: String,
        /// Run as a process of its own, which is the default
        #[arg(long, overrides_with = "no_detach")]
        detach: bool,
        /// Run in the foreground
        #[arg(long)]
        no_detach: bool,
    },
    /// Stop an endpoint
    Stop {
        /// Its name
        name: String,
    },
    /// Get, put, look for or evict one object by hand
    Test(Test),
    /// See whether peers behind other NATs can reach this host directly
    CheckNat {
        /// Has no effect
        #[arg(long, value_name = "ADDRESS")]
        host: Option<String>,
        /// Has no effect
        #[arg(long)]
        port: Option<u16>,
    },
    /// Show the version
    Version,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command")]
struct Options {
    /// What it is called on this site
    name: String,
    /// Where clients on other hosts connect: `ip`, `fqdn` or an address
    #[arg(long, default_value = "ip")]
    host: String,
    /// The TCP port there [default: any]
    #[arg(long)]
    port: Option<u16>,
    /// The relay where its peers meet it, https://HOST:PORT
    #[arg(long, value_name = "ADDRESS", value_parser = a_relay)]
    relay_address: Option<String>,
    /// Has no effect: a relay is shown `token` of section [relay]
    #[arg(long)]
    relay_auth: bool,
    /// Has no effect
    #[arg(long)]
    no_relay_auth: bool,
    /// Has no effect: it has a relay if it has the address of one
    #[arg(long, overrides_with = "no_relay_server")]
    relay_server: bool,
    /// Be a store of this site alone
    #[arg(long)]
    no_relay_server: bool,
    /// How many parts of a large object are fetched from a peer at once
    #[arg(long, value_name = "COUNT")]
    peer_channels: Option<u16>,
    /// Keep objects over restarts
    #[arg(long, overrides_with = "no_persist")]
    persist: bool,
    /// Forget objects at restarts, which is the default
    #[arg(long)]
    no_persist: bool,
}

fn act(home: &Path, cli: Cli) -> Result<ExitCode> {
    match cli.verb {
        Verb::Configure(options) => configure(home, &translated(options)),
        Verb::List => Ok(list(home, &List { json: false })),
        Verb::Remove { name } => remove(home, &Remove { name, yes: true }),
        Verb::Start { name, detach, no_detach } => {
            let level = cli.log_level.map(|level| level.to_ascii_lowercase());
            let log_level = level.map(|level| level.replace("warning", "warn"));
            start(home, &Start { name, detach, no_detach, log_level, timeout: 60, systemd: false })
        }
        Verb::Stop { name } => stop(home, &Stop { name, timeout: 30, force: false }),
        Verb::Test(args) => test(home, &args),
        Verb::CheckNat { host, port } => {
            if host.is_some() || port.is_some() {
                without_meaning(
                    "what --host and --port say",
                    "the doctor has no address to choose",
                );
            }
            crate::doctor::doctor(home, &crate::doctor::Doctor::default())
        }
        Verb::Version => {
            output::data(format!("ProxyStore v{}", env!("CARGO_PKG_VERSION")));
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The address of a relay, also as the Python original writes it.
fn a_relay(text: &str) -> Result<String, String> {
    crate::endpoint::a_relay(&text.replacen("wss://", "https://", 1))
}

fn translated(options: Options) -> Configure {
    if options.relay_auth || options.no_relay_auth {
        without_meaning("--relay-auth", "a relay is shown `token` of section [relay] if it is set");
    }
    if options.relay_server && options.relay_address.is_none() {
        without_meaning("--relay-server", "say with --relay-address which");
    }
    Configure {
        name: options.name,
        host: Some(options.host),
        port: options.port,
        relay: options.relay_address.filter(|_| !options.no_relay_server),
        no_peers: options.no_relay_server,
        streams: options.peer_channels,
        persist: options.persist,
        ..Configure::default()
    }
}

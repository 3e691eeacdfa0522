//! `proxystore relay`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use proxystore::{Error, ErrorKind, Result};
use proxystore_endpoint::config::Invitation;
use proxystore_endpoint::relay::{self, Config, RelayInfo, run};
use tracing::info;

use crate::{log, output, process};

#[derive(Debug, Default, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Relay {
    /// Its config.toml, beside which its certificate is kept [default: `relay/config.toml` in the home,
    /// which the first start writes]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The address it listens on
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) host: Option<IpAddr>,
    /// The TCP port
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// The UDP port at which endpoints learn their addresses; 0 for none, and then no NAT is passed
    /// directly
    #[arg(long, value_name = "PORT")]
    pub(crate) udp_port: Option<u16>,
    /// A name or address by which endpoints reach it; may be repeated
    #[arg(long = "name", value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// What is logged: error, warn, info, debug, trace, or directives
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// The file that is logged to [default: standard error]
    #[arg(long, value_name = "FILE")]
    pub(crate) log_file: Option<PathBuf>,
    /// Print the token that endpoints show, and do nothing else
    #[arg(long, conflicts_with = "invite")]
    pub(crate) token: bool,
    /// Print one line with all that endpoints have to be told, and do nothing else
    #[arg(long)]
    pub(crate) invite: bool,
}

const EXAMPLES: &str = "\
Examples:
  proxystore relay
  proxystore relay --name relay.example.org --port 443 --udp-port 0
  proxystore relay --invite

It runs in the foreground until SIGINT or SIGTERM. Options are over those of its config.toml. At the first site, with
what --invite printed, and at the others with what the last command prints there:
  proxystore endpoint configure site-a --join --new-group-secret
  proxystore endpoint start site-a
  proxystore endpoint invite site-a";

const START: &str = "start a relay";

pub(crate) fn relay(home: &Path, args: &Relay) -> Result<ExitCode> {
    let mut config = config(home, args.config.as_deref())?;
    if args.token {
        let token = config.access.tokens.first().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "show a relay's token", "it has none")
                .with("directory", config.directory.display())
                .with_hint("write one into `tokens` in section [access] of its config.toml")
        })?;
        output::data(token);
        return Ok(ExitCode::SUCCESS);
    }
    config.host = args.host.unwrap_or(config.host);
    config.port = args.port.unwrap_or(config.port);
    config.udp_port = args.udp_port.unwrap_or(config.udp_port);
    if !args.names.is_empty() {
        config.names.clone_from(&args.names);
    }
    if args.invite {
        let invitation = Invitation {
            relay: relay::url(&config)?,
            relay_token: config.access.tokens.first().cloned().unwrap_or_default(),
            relay_fingerprint: relay::fingerprint(&config)?,
            relay_udp_port: config.udp_port,
            group_secret: String::new(),
        };
        output::note("Whoever has this line is let in:");
        output::data(invitation.reveal()?);
        return Ok(ExitCode::SUCCESS);
    }
    let level = args.log_level.as_ref().unwrap_or(&config.log.level);
    log::begin(args.log_file.as_deref(), level, config.log.json)?;
    let hung_up = || info!("SIGHUP does nothing: a restart reads the configuration again");
    process::until_signal(START, hung_up, async |stop| run(config, stop, ready).await)
}

/// What it is told. One that was not told anything yet gets a file with the defaults and a token.
fn config(home: &Path, file: Option<&Path>) -> Result<Config> {
    if let Some(file) = file {
        let file = std::path::absolute(file)
            .map_err(|error| Error::io(START, error).with("file", file.display()))?;
        return Config::read_file(&file);
    }
    let directory = home.join("relay");
    if Config::file(&directory).exists() {
        return Config::read(&directory);
    }
    let config = Config::create(&directory)?;
    output::note(format!("Wrote {}", Config::file(&directory).display()));
    Ok(config)
}

/// Prints what endpoints have to be told.
fn ready(info: &RelayInfo) {
    output::data(format!("{:<12}{}", "url", info.url));
    output::data(format!("{:<12}{}", "fingerprint", info.fingerprint));
    if let Some(web) = info.web {
        output::data(format!("{:<12}http://{web}/", "web"));
    }
    output::note(
        "The relay runs. The same command with --invite prints what endpoints have to be told.",
    );
}

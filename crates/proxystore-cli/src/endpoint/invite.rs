//! `proxystore endpoint invite`: what another site needs to become a peer of this one.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use proxystore::{Error, ErrorKind, Result};
use proxystore_endpoint::config::Invitation;

use super::find;
use crate::output;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Invite {
    /// The endpoint whose peer the other will be: its name, id or UUID
    name: String,
}

const EXAMPLES: &str = "\
Examples:
  proxystore endpoint invite site-a
  proxystore endpoint configure site-b --join

The line holds the secret of the group and the token of the relay: send it as you send a password.";

pub(crate) fn invite(home: &Path, args: &Invite) -> Result<ExitCode> {
    let (directory, card) = find(home, &args.name)?;
    let config = directory.config()?;
    if config.peers.group_secret.is_empty() {
        return Err(Error::new(ErrorKind::Config, "invite a peer", "the endpoint belongs to no group")
            .with("file", directory.config_file().display())
            .with_hint(format!(
                "write a `group_secret` into [peers] there (`openssl rand -hex 32` makes one) and run `proxystore endpoint \
                 reload {0}`, or admit peers one by one: `proxystore endpoint trust {0} ID`",
                card.name
            )));
    }
    let invitation = Invitation {
        relay: config.relay.url,
        relay_token: config.relay.token,
        relay_fingerprint: config.relay.fingerprint,
        relay_udp_port: config.relay.udp_port,
        group_secret: config.peers.group_secret,
    };
    output::note("Whoever has this line becomes a peer:");
    output::data(invitation.reveal()?);
    output::note(format!(
        "There: proxystore endpoint configure NAME --join\n       \
                proxystore endpoint start NAME\n       \
                proxystore endpoint ping NAME {}",
        card.id
    ));
    Ok(ExitCode::SUCCESS)
}

/// The invitation that was given, or the line on standard input for `-`; a person is asked for it.
pub(crate) fn accept(given: &str) -> Result<Invitation> {
    if given != "-" {
        return given.parse();
    }
    if io::stdin().is_terminal() {
        output::note("The line that `invite` printed:");
    }
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(|error| Error::io("read an invitation", error))?;
    line.parse()
}

//! `proxystore endpoint configure`: a new endpoint.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use proxystore::wire::greeting::Token;
use proxystore::{Error, ErrorKind, Result};
use proxystore_endpoint::config::{Config, Invitation, size, template};
use proxystore_endpoint::directory::Directory;
use toml_edit::{DocumentMut, Value};

use super::a_relay;
use super::invite::accept;
use crate::output;

const CONFIGURE: &str = "configure an endpoint";

#[derive(Debug, Default, Args)]
#[command(after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command")]
pub(crate) struct Configure {
    /// What it is called on this site: letters, digits, dashes and underscores
    pub(crate) name: String,
    /// Where clients on other hosts connect: `ip` (this host's address), `fqdn` (its name) or an
    /// address; clients on this host need none
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) host: Option<String>,
    /// The TCP port for clients on other hosts [default: any]
    #[arg(long, requires = "host")]
    pub(crate) port: Option<u16>,
    /// What `proxystore endpoint invite` or `proxystore relay --invite` printed: the relay and the secret of a
    /// group; alone it asks for that, so that no list of processes shows it
    #[arg(long, value_name = "INVITATION", num_args = 0..=1, default_missing_value = "-", conflicts_with_all = ["relay", "no_peers"])]
    pub(crate) join: Option<String>,
    /// The relay where its peers meet it, such as <https://relay.example.org:8443>
    #[arg(long, value_name = "URL", value_parser = a_relay)]
    pub(crate) relay: Option<String>,
    /// What the relay asks for
    #[arg(long, value_name = "TOKEN", requires = "relay")]
    pub(crate) relay_token: Option<String>,
    /// SHA-256 of the relay's certificate, which is then believed whoever signed it
    #[arg(long, value_name = "SHA256", requires = "relay")]
    pub(crate) relay_fingerprint: Option<String>,
    /// File with the certificate authority of the relay [default: those that browsers believe]
    #[arg(long, value_name = "FILE", requires = "relay")]
    pub(crate) relay_ca_file: Option<PathBuf>,
    /// The UDP port of the relay; 0 for none, and then no NAT is passed directly [default: 7842]
    #[arg(long, value_name = "PORT", requires = "relay")]
    pub(crate) relay_udp_port: Option<u16>,
    /// How much memory objects may take, such as "4 GB" [default: 1 GiB]
    #[arg(long, value_name = "SIZE", value_parser = a_size)]
    pub(crate) memory: Option<String>,
    /// How much disk objects may take that memory has no room for; 0 for none [default: 10 GiB]
    #[arg(long, value_name = "SIZE", value_parser = a_size)]
    pub(crate) disk: Option<String>,
    /// The longest object; 0 for any that fits [default: 0]
    #[arg(long, value_name = "SIZE", value_parser = a_size)]
    pub(crate) max_object: Option<String>,
    /// Keep objects over restarts
    #[arg(long, overrides_with = "no_persist")]
    pub(crate) persist: bool,
    /// Forget objects at restarts, which is the default
    #[arg(long)]
    pub(crate) no_persist: bool,
    /// Be a store of this site alone
    #[arg(long, conflicts_with_all = ["relay", "group_secret_file", "new_group_secret"])]
    pub(crate) no_peers: bool,
    /// The UDP port at which peers reach it [default: any]
    #[arg(long, value_name = "PORT")]
    pub(crate) peer_port: Option<u16>,
    /// How many parts of a large object are fetched from a peer at once [default: 4]
    #[arg(long, value_name = "N")]
    pub(crate) streams: Option<u16>,
    /// File with a secret: whoever knows it is admitted as a peer, with full access
    #[arg(long, value_name = "FILE", conflicts_with = "new_group_secret")]
    pub(crate) group_secret_file: Option<PathBuf>,
    /// Make such a secret; `proxystore endpoint invite` prints what the others need to know of it
    #[arg(long)]
    pub(crate) new_group_secret: bool,
    /// Where metrics, health and the page are served, ADDRESS:PORT; "" for nowhere
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) web: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  proxystore endpoint configure site-a
  proxystore endpoint configure site-a --memory \"4 GB\" --disk \"200 GB\" --persist
  proxystore endpoint configure site-a --relay https://relay.example.org:8443 --new-group-secret
  proxystore endpoint configure site-b --join
  proxystore endpoint configure login-node --host fqdn --port 8700

Prints the id of the endpoint. Every other option is in its config.toml, explained there.";

pub(crate) fn configure(home: &Path, args: &Configure) -> Result<ExitCode> {
    let directory = Directory::named(home, &args.name)?;
    let invited = args.join.as_deref().map(accept).transpose()?.unwrap_or_default();
    let founds = args.new_group_secret || args.group_secret_file.is_some();
    let joins = !invited.group_secret.is_empty();
    if founds && joins {
        return Err(Error::new(ErrorKind::Config, CONFIGURE, "the invitation is to another group")
            .with_hint("leave out --new-group-secret and --group-secret-file to join that group"));
    }
    let text = text(args, invited)?;
    let card = directory.create(&args.name, &text)?;
    output::note(format!(
        "Configured the endpoint {} in {}",
        args.name,
        directory.path().display()
    ));
    output::note(format!("Its options are in {}", directory.config_file().display()));
    output::note(format!("Next: proxystore endpoint start {}", args.name));
    if founds {
        output::note(format!(
            "Peers: they join what `proxystore endpoint invite {}` prints",
            args.name
        ));
    } else if joins {
        output::note("Peers: all that are of its group");
    } else if args.relay.is_some() || args.join.is_some() {
        output::note(format!(
            "Peers: they admit it with `proxystore endpoint trust NAME {}`",
            card.id
        ));
    }
    output::data(card.id);
    Ok(ExitCode::SUCCESS)
}

/// The template with what was asked for. Nothing is written unless all of it has a meaning.
fn text(args: &Configure, invited: Invitation) -> Result<String> {
    let mut text: DocumentMut =
        template(&args.name).parse().map_err(|source: toml_edit::TomlError| {
            Error::new(ErrorKind::Config, CONFIGURE, "the template is damaged").with_source(source)
        })?;
    let mut set = |section: &str, option: &str, value: Value| {
        text[section][option] = toml_edit::value(value);
    };
    let said = |text: String| Some(text).filter(|text| !text.is_empty());
    let invited_port = said(invited.relay.clone()).map(|_| invited.relay_udp_port);
    let texts = [
        ("clients", "host", &args.host),
        ("relay", "url", &args.relay.clone().or_else(|| said(invited.relay))),
        ("relay", "token", &args.relay_token.clone().or_else(|| said(invited.relay_token))),
        (
            "relay",
            "fingerprint",
            &args.relay_fingerprint.clone().or_else(|| said(invited.relay_fingerprint)),
        ),
        ("storage", "memory", &args.memory),
        ("storage", "disk", &args.disk),
        ("storage", "max_object", &args.max_object),
        ("peers", "group_secret", &group_secret(args)?.or_else(|| said(invited.group_secret))),
        ("web", "address", &args.web),
    ];
    for (section, option, value) in texts {
        if let Some(value) = value {
            set(section, option, value.as_str().into());
        }
    }
    if let Some(port) = args.port {
        set("clients", "port", i64::from(port).into());
    }
    if let Some(port) = args.peer_port {
        set("peers", "port", i64::from(port).into());
    }
    if let Some(port) = args.relay_udp_port.or(invited_port) {
        set("relay", "udp_port", i64::from(port).into());
    }
    if let Some(streams) = args.streams {
        set("peers", "streams", i64::from(streams).into());
    }
    if let Some(file) = &args.relay_ca_file {
        let file = std::path::absolute(file)
            .map_err(|error| Error::io(CONFIGURE, error).with("file", file.display()))?;
        set("relay", "ca_file", file.to_string_lossy().as_ref().into());
    }
    if args.persist {
        set("storage", "persist", true.into());
    }
    if args.no_peers {
        set("peers", "enabled", false.into());
    }
    let text = text.to_string();
    let _: Config = toml_edit::de::from_str(&text).map_err(|source| {
        Error::new(ErrorKind::Config, CONFIGURE, source.message().to_owned())
            .with_hint("correct the option: `proxystore endpoint configure --help`")
    })?;
    Ok(text)
}

fn group_secret(args: &Configure) -> Result<Option<String>> {
    if args.new_group_secret {
        return Token::random().map(|token| Some(token.reveal()));
    }
    let Some(file) = &args.group_secret_file else { return Ok(None) };
    let secret = fs::read_to_string(file)
        .map_err(|error| Error::io(CONFIGURE, error).with("file", file.display()))?;
    let secret = secret.trim();
    if secret.len() < 16 {
        return Err(Error::new(ErrorKind::Config, CONFIGURE, "the secret is too short")
            .with("file", file.display())
            .with_hint("make one of 16 characters at least: `openssl rand -hex 32`"));
    }
    Ok(Some(secret.to_owned()))
}

/// A size as config.toml takes it.
fn a_size(text: &str) -> Result<String, String> {
    match size::parse(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("write a number of bytes, or \"64 MiB\", \"1.5 GB\"".into()),
    }
}

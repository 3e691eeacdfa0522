//! `proxystore endpoint trust`: who is admitted, in config.toml, whose comments stay.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use proxystore::wire::EndpointId;
use proxystore::{Error, ErrorKind, Result};
use proxystore_endpoint::config::{Access, Peer};
use proxystore_endpoint::directory::Directory;
use proxystore_endpoint::lock::holder;
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, value};

use super::{find, peer};
use crate::{client, output};

const TRUST: &str = "change who is admitted";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Trust {
    /// The endpoint that admits: its name, id or UUID
    name: String,
    /// The peer: its id, as `proxystore endpoint show NAME --id` prints it there
    #[arg(required_unless_present = "list")]
    id: Option<String>,
    /// What the peer is called here
    #[arg(long = "as", value_name = "LABEL")]
    label: Option<String>,
    /// The relay by which it is reached [default: this endpoint's own]
    #[arg(long, value_name = "URL", value_parser = super::a_relay)]
    relay: Option<String>,
    /// Where it may be reached without a relay; may be repeated
    #[arg(long = "address", value_name = "HOST:PORT", value_parser = an_address)]
    addresses: Vec<String>,
    /// It may get and wait, and nothing else
    #[arg(long)]
    read_only: bool,
    /// Admit it no more
    #[arg(long, conflicts_with_all = ["label", "relay", "addresses", "read_only", "list"])]
    remove: bool,
    /// Show who is admitted
    #[arg(long, conflicts_with_all = ["label", "relay", "addresses", "read_only"])]
    list: bool,
}

const EXAMPLES: &str = "\
Examples:
  proxystore endpoint trust site-a gizkz3c3pppwaglwlhbvuumqrivgxsgnlh5dmaiqj3jkzkpmyn6q --as site-b
  proxystore endpoint trust site-a site-b --read-only
  proxystore endpoint trust site-a --list
  proxystore endpoint trust site-a site-b --remove

Both sides have to admit each other, or to know the same group secret.";

fn an_address(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(text.to_owned())
        }
        _ => Err("write HOST:PORT".into()),
    }
}

pub(crate) fn trust(home: &Path, args: &Trust) -> Result<ExitCode> {
    let (directory, card) = find(home, &args.name)?;
    let config = directory.config()?;
    let (false, Some(called)) = (args.list, &args.id) else {
        return Ok(show(&config.peers.allow, !config.peers.group_secret.is_empty()));
    };
    let id = peer(home, &config, called)?;
    if id == card.endpoint()? {
        return Err(Error::new(ErrorKind::Config, TRUST, "this is the endpoint itself")
            .with("id", id.short())
            .with_hint("say the id of the other one"));
    }
    let path = directory.config_file();
    let text = fs::read_to_string(&path)
        .map_err(|error| Error::io(TRUST, error).with("file", path.display()))?;
    let changed = if args.remove { removed(&text, &id)? } else { admitted(&text, &id, args)? };
    directory.write_config(&changed)?;
    let done = if args.remove { "does not admit" } else { "admits" };
    output::note(format!("The endpoint {} {done} {}.", card.name, id.short()));
    tell_daemon(&directory, &card.name);
    Ok(ExitCode::SUCCESS)
}

fn tell_daemon(directory: &Directory, name: &str) {
    if holder(directory).is_some() {
        output::note(match client::reload(directory) {
            Ok(()) => "It counts at once.".into(),
            Err(error) => format!("{error}\nIt counts after: proxystore endpoint restart {name}"),
        });
    }
}

fn show(allow: &[Peer], group: bool) -> ExitCode {
    let access = |peer: &Peer| match peer.access {
        Access::Full => "full".to_owned(),
        Access::Read => "read".to_owned(),
    };
    let rows: Vec<_> = allow
        .iter()
        .map(|peer| {
            let way = [peer.relay.clone(), peer.addresses.join(" ")].join(" ");
            vec![peer.name.clone(), access(peer), peer.id.clone(), way.trim().to_owned()]
        })
        .collect();
    if rows.is_empty() && !group {
        output::note("It admits no peers yet.");
    } else {
        output::table(&["NAME", "ACCESS", "ID", "REACHED BY"], &rows);
    }
    if group {
        output::note("Besides, it admits whoever knows its group secret.");
    }
    ExitCode::SUCCESS
}

/// The file with a peer on its list. What is not asked for stays as it was.
fn admitted(text: &str, id: &EndpointId, args: &Trust) -> Result<String> {
    let mut document = parse(text)?;
    let allow = list(&mut document)?;
    let at = position(allow, id).unwrap_or_else(|| {
        let mut entry = Table::new();
        entry["id"] = value(id.to_string());
        entry["name"] = value(id.short());
        allow.push(entry);
        allow.len() - 1
    });
    let Some(entry) = allow.get_mut(at) else { return Err(damaged()) };
    if let Some(label) = &args.label {
        entry["name"] = value(label);
    }
    if let Some(relay) = &args.relay {
        entry["relay"] = value(relay);
    }
    if !args.addresses.is_empty() {
        entry["addresses"] = value(args.addresses.iter().collect::<Array>());
    }
    entry["access"] = value(if args.read_only { "read" } else { "full" });
    Ok(document.to_string())
}

fn removed(text: &str, id: &EndpointId) -> Result<String> {
    let mut document = parse(text)?;
    let allow = list(&mut document)?;
    let Some(at) = position(allow, id) else {
        return Err(Error::new(ErrorKind::NotFound, TRUST, "it is not admitted by name")
            .with("id", id.short())
            .with_hint("`proxystore endpoint trust NAME --list` shows who is"));
    };
    allow.remove(at);
    Ok(document.to_string())
}

fn parse(text: &str) -> Result<DocumentMut> {
    text.parse().map_err(|source: toml_edit::TomlError| {
        Error::new(ErrorKind::Config, TRUST, source.message().to_owned())
    })
}

/// `[[peers.allow]]`, which is made where it is missing.
fn list(document: &mut DocumentMut) -> Result<&mut ArrayOfTables> {
    let peers = document.entry("peers").or_insert_with(toml_edit::table);
    let Some(peers) = peers.as_table_mut() else { return Err(damaged()) };
    let allow = peers.entry("allow").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    if allow.as_array().is_some_and(Array::is_empty) {
        *allow = Item::ArrayOfTables(ArrayOfTables::new());
    }
    allow.as_array_of_tables_mut().ok_or_else(damaged)
}

fn position(allow: &ArrayOfTables, id: &EndpointId) -> Option<usize> {
    let has = |entry: &Table| entry.get("id")?.as_str()?.parse::<EndpointId>().ok();
    allow.iter().position(|entry| has(entry).as_ref() == Some(id))
}

fn damaged() -> Error {
    Error::new(ErrorKind::Config, TRUST, "`peers` is written in a form that is not edited")
        .with_hint("write [[peers.allow]] in config.toml by hand")
}

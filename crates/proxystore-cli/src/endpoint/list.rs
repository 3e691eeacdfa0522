//! `proxystore endpoint list`.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use proxystore::connectors::endpoint::home::{Card, endpoints_below};
use proxystore_endpoint::directory::Directory;
use proxystore_endpoint::lock::{holder, host_name};
use serde_json::json;

use crate::output;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  proxystore endpoint list\n  proxystore endpoint list --json")]
pub(crate) struct List {
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Whether an endpoint runs: `running`, `stopped`, `killed` (it did not say good-bye), or `on HOST`, where
/// nothing is known of it here.
pub(crate) fn state(directory: &Directory, card: &Card) -> String {
    match &card.host {
        _ if holder(directory).is_some_and(|held| held.host == host_name()) => "running".into(),
        Some(host) if *host != host_name() => format!("on {host}"),
        Some(_) => "killed".into(),
        None => "stopped".into(),
    }
}

pub(crate) fn list(home: &Path, args: &List) -> ExitCode {
    let all = endpoints_below(home);
    let all = all.into_iter().map(|(path, card)| (state(&Directory::at(&path), &card), path, card));
    if args.json {
        let all: Vec<_> = all
            .map(|(state, path, card)| {
                json!({
                    "name": card.name,
                    "state": state,
                    "id": card.id,
                    "uuid": card.uuid,
                    "directory": path,
                    "socket": card.socket,
                    "tcp": card.tcp,
                    "relay": card.relay,
                    "web": card.web,
                })
            })
            .collect();
        output::data(format_args!("{:#}", serde_json::Value::from(all)));
        return ExitCode::SUCCESS;
    }
    let rows: Vec<_> =
        all.map(|(state, _, card)| vec![card.name, state, card.id, card.uuid]).collect();
    if rows.is_empty() {
        output::note(format!("There are no endpoints in {}.", home.display()));
        output::note("Make one: proxystore endpoint configure NAME");
        return ExitCode::SUCCESS;
    }
    output::table(&["NAME", "STATE", "ID", "UUID"], &rows);
    ExitCode::SUCCESS
}

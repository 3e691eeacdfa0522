//! How it is with one endpoint.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use proxystore::Result;
use proxystore::connectors::endpoint::home::{Card, TOKEN};
use proxystore::wire::{Answer, Pong, Request};
use proxystore_endpoint::config::Config;
use proxystore_endpoint::directory::Directory;
use serde_json::Value;

use super::Findings;
use super::host::{available_memory, free, megabytes};
use crate::client::Client;
use crate::endpoint::list::state;
use crate::endpoint::peer;

/// Looks at it; with a peer to be reached, the answer is a picture of the path.
pub(super) fn look(
    home: &Path,
    directory: &Directory,
    card: &Card,
    called: Option<&str>,
    findings: &mut Findings<'_>,
) -> Option<String> {
    let config = match directory.config() {
        Ok(config) => config,
        Err(error) => {
            findings.failed("config.toml", &error);
            return None;
        }
    };
    findings.ok("config.toml", directory.config_file().display().to_string());
    secrets(directory, findings);
    room(directory, &config, findings);
    let mut client = running(directory, card, findings);
    let told = client.as_mut().map(|client| client.ask(&Request::Status, &[]));
    if peers(&config, findings) {
        super::network::look(directory, &config, told.is_some(), findings);
        if let Some(told) = told {
            relay(&config, told, findings);
        }
    }
    reach(home, &config, card, called?, client.as_mut()?, findings)
}

/// Whoever reads these can take the endpoint's place.
fn secrets(directory: &Directory, findings: &mut Findings<'_>) {
    for path in [directory.path().join(TOKEN), directory.identity_file(), directory.config_file()] {
        let mode = match fs::metadata(&path) {
            Ok(meta) => meta.permissions().mode(),
            Err(error) => {
                let found = format!("{}: {error}", path.display());
                let remedy =
                    "restore the file, or configure the endpoint anew: it has another id then";
                return findings.problem("secrets", found, remedy);
            }
        };
        if mode & 0o077 != 0 {
            let remedy = format!("chmod 600 {}", path.display());
            return findings.problem(
                "secrets",
                format!("others may read {}", path.display()),
                remedy,
            );
        }
    }
    findings.ok("secrets", "only this user reads them");
}

/// Whether there is as much room as it was told to use.
fn room(directory: &Directory, config: &Config, findings: &mut Findings<'_>) {
    let limit = config.storage.memory;
    match available_memory() {
        Some(available) if available < limit => findings.warning(
            "memory",
            format!("{} are available, and it may use {}", megabytes(available), megabytes(limit)),
            "lower `memory` in section [storage]: what does not fit goes to disk",
        ),
        _ => findings.ok("memory", format!("it may use {}", megabytes(limit))),
    }
    let dir = directory.path().join(&config.storage.dir);
    match free(&dir) {
        Some((_, free)) if free < config.storage.disk => findings.warning(
            "disk",
            format!(
                "{} are free, and it may use {}",
                megabytes(free),
                megabytes(config.storage.disk)
            ),
            "lower `disk` in section [storage], or set `dir` to where there is more",
        ),
        Some(_) => findings.ok("disk", format!("it may use {}", megabytes(config.storage.disk))),
        None => findings.warning(
            "disk",
            format!("{} is not there", dir.display()),
            "make the directory, or correct `dir` in section [storage]",
        ),
    }
}

fn running(directory: &Directory, card: &Card, findings: &mut Findings<'_>) -> Option<Client> {
    let start = format!("proxystore endpoint start {}", card.name);
    match state(directory, card).as_str() {
        "stopped" => findings.warning("daemon", "it does not run", start),
        "killed" => findings.warning("daemon", "it was killed, and does not run", start),
        state => match Client::connect(directory, Duration::from_secs(10)) {
            Ok(client) => {
                findings.ok("daemon", format!("it is {state} and answers"));
                return Some(client);
            }
            Err(error) => findings.failed("daemon", &error),
        },
    }
    None
}

/// Whether it has a relay, for its peers.
fn peers(config: &Config, findings: &mut Findings<'_>) -> bool {
    if !config.peers.enabled {
        findings.ok("peers", "it has none: it is a store of its site");
        return false;
    }
    if config.peers.allow.is_empty() && config.peers.group_secret.is_empty() {
        findings.warning(
            "peers",
            "it admits nobody",
            "admit peers with `proxystore endpoint trust`, or by a group secret",
        );
    }
    if config.relay.url.is_empty() {
        findings.warning(
            "relay",
            "it has none: only peers whose address is known are reached",
            "set `url` in section [relay]; `proxystore relay` is one",
        );
    }
    !config.relay.url.is_empty()
}

/// The relay, as the daemon sees it.
fn relay(config: &Config, told: Result<(Answer, Vec<u8>)>, findings: &mut Findings<'_>) {
    const WHAT: &str = "relay";
    let told: Option<Value> = match told {
        Ok((_, body)) => serde_json::from_slice(&body).ok(),
        Err(error) => return findings.failed(WHAT, &error),
    };
    let relay = told.as_ref().map(|told| &told["relay"]);
    let url = &config.relay.url;
    match relay.and_then(|relay| relay["connected"].as_bool()) {
        Some(true) => findings.ok(WHAT, format!("it is connected to {url}")),
        Some(false) => {
            let problem = relay.and_then(|relay| relay["problem"].as_str());
            findings.problem(
                WHAT,
                format!("{url}: {}", problem.unwrap_or("it is not connected")),
                "is the relay up? see `url`, `token`, `fingerprint` in section [relay], and firewalls",
            );
        }
        None => findings.warning(
            WHAT,
            format!("the daemon does not know {url}"),
            format!(
                "restart it: its file was changed since, or it is older than {}",
                env!("CARGO_PKG_VERSION")
            ),
        ),
    }
}

/// The path to a peer.
fn reach(
    home: &Path,
    config: &Config,
    card: &Card,
    called: &str,
    client: &mut Client,
    findings: &mut Findings<'_>,
) -> Option<String> {
    let pong = peer(home, config, called).and_then(|id| client.ask(&Request::Ping(id), &[]));
    let pong = match pong {
        Ok((Answer::Pong(pong), _)) => pong,
        Ok(_) => return None,
        Err(error) => {
            findings.failed("path", &error);
            return None;
        }
    };
    let found = format!("{called} answers, {} by {}", pong.path, pong.via);
    if pong.path == "relayed" {
        findings.warning(
            "path",
            found,
            "it works, but slower: let UDP out and in at one of the two sites for a direct path",
        );
    } else {
        findings.ok("path", found);
    }
    Some(picture(&card.name, called, &pong))
}

fn picture(here: &str, there: &str, pong: &Pong) -> String {
    let time = format!("{:.1} ms", Duration::from_micros(pong.round_trip_us).as_secs_f64() * 1e3);
    match pong.path.as_str() {
        "relayed" => format!("\n  [{here}] <--> ({}) <--> [{there}]   {time}", pong.via),
        _ => format!("\n  [{here}] <====== {} ======> [{there}]   {time}", pong.via),
    }
}

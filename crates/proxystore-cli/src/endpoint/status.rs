//! `proxystore endpoint status`.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Args;
use proxystore::wire::Request;
use proxystore::{Error, ErrorKind, Result};
use serde_json::Value;

use super::find;
use super::list::state;
use super::run::reached;
use crate::client::Client;
use crate::output;

const STATUS: &str = "show the status of an endpoint";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Status {
    /// Its name, id or UUID
    name: String,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Print where its page is, and open it in a browser where there is one
    #[arg(long, conflicts_with = "json")]
    web: bool,
}

const EXAMPLES: &str = "\
Examples:
  proxystore endpoint status site-a
  proxystore endpoint status site-a --json | jq .storage
  proxystore endpoint status site-a --web

The exit code is 1 when it does not run.";

pub(crate) fn status(home: &Path, args: &Status) -> Result<ExitCode> {
    let (directory, card) = find(home, &args.name)?;
    if args.web {
        return page(card.web.as_deref());
    }
    let state = state(&directory, &card);
    if state != "running" && card.tcp.is_none() {
        if args.json {
            output::data(serde_json::json!({ "name": card.name, "id": card.id, "state": state }));
        }
        output::note(format!("The endpoint {} does not run: it is {state}.", card.name));
        return Ok(ExitCode::FAILURE);
    }
    let mut client = Client::connect(&directory, Duration::from_secs(10))?;
    let (_, body) = client.ask(&Request::Status, &[])?;
    let told: Value = serde_json::from_slice(&body).map_err(|source| {
        Error::new(ErrorKind::Corrupt, STATUS, "the answer is none").with_source(source)
    })?;
    if args.json {
        output::data(format_args!("{told:#}"));
        return Ok(ExitCode::SUCCESS);
    }
    for (what, value) in reached(&card) {
        output::data(format!("{what:<10}{value}"));
    }
    picture(&told);
    Ok(ExitCode::SUCCESS)
}

/// What people want to know; programs get all of it as JSON.
fn picture(told: &Value) {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let amount = |value: &Value| people(number(value));
    let storage = &told["storage"];
    let of = |used: &str, limit: &str| {
        format!("{} of {}", amount(&storage[used]), amount(&storage[limit]))
    };
    let connected = &told["relay"]["connected"];
    let relay = match (connected.as_bool(), told["relay"]["problem"].as_str()) {
        (Some(true), _) => "connected".to_owned(),
        (Some(false), problem) => format!("not connected: {}", problem.unwrap_or("not yet")),
        (None, _) => "none".to_owned(),
    };
    for (what, value) in [
        ("process", format!("{}, for {} s", number(&told["pid"]), number(&told["uptime"]))),
        ("objects", number(&storage["objects"]).to_string()),
        ("memory", of("memory", "memory_limit")),
        ("disk", of("disk", "disk_limit")),
        ("clients", number(&told["clients"]).to_string()),
        ("requests", format!("{}, {} failed", told["requests"], told["failures"])),
        ("clients'", traffic(&amount(&told["bytes_in"]), &amount(&told["bytes_out"]))),
        ("peers'", traffic(&amount(&told["peer_bytes_in"]), &amount(&told["peer_bytes_out"]))),
        ("meets at", relay),
    ] {
        output::data(format!("{what:<10}{value}"));
    }
    let peers = told["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
    if peers.is_empty() {
        return;
    }
    let rows: Vec<Vec<String>> = peers
        .iter()
        .map(|peer| {
            let text = |field: &str| peer[field].as_str().unwrap_or_default().to_owned();
            let time = Duration::from_micros(number(&peer["round_trip_us"])).as_secs_f64() * 1e3;
            let bytes = traffic(&amount(&peer["bytes_in"]), &amount(&peer["bytes_out"]));
            let time = if time > 0.0 { format!("{time:.1}") } else { String::new() };
            vec![text("name"), text("path"), text("via"), time, bytes, text("state")]
        })
        .collect();
    output::data("");
    output::table(&["PEER", "PATH", "BY", "MS", "OBJECTS", "STATE"], &rows);
}

fn traffic(bytes_in: &str, bytes_out: &str) -> String {
    format!("{bytes_in} in, {bytes_out} out")
}

/// Bytes with three digits or so.
fn people(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "few digits are shown")]
    let mut amount = bytes as f64;
    let mut units = ["B", "KB", "MB", "GB", "TB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for larger in units {
        if amount < 1000.0 {
            break;
        }
        (amount, unit) = (amount / 1000.0, larger);
    }
    let digits = usize::from(unit != "B" && amount < 100.0);
    format!("{amount:.digits$} {unit}")
}

fn page(web: Option<&str>) -> Result<ExitCode> {
    let Some(web) = web else {
        return Err(Error::new(ErrorKind::Config, STATUS, "it has no page now")
            .with_hint("start it, with `address` in section [web] of its config.toml"));
    };
    let url = format!("http://{web}/");
    output::data(&url);
    let opened = Command::new("xdg-open")
        .arg(&url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    drop(opened); // where there is no browser, the address is all there is to give
    Ok(ExitCode::SUCCESS)
}

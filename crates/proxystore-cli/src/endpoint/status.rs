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
        output::data(format!("{what:<8}{value}"));
    }
    lines("", &told);
    Ok(ExitCode::SUCCESS)
}

/// Every number and text that there is, by its place.
fn lines(prefix: &str, value: &Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = name.replace('_', " ");
                lines(&if prefix.is_empty() { name } else { format!("{prefix} {name}") }, value);
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                lines(&format!("{prefix} {}", i + 1), item);
            }
        }
        Value::Null => {}
        Value::String(text) => output::data(format!("{prefix:<24}{text}")),
        other => output::data(format!("{prefix:<24}{other}")),
    }
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

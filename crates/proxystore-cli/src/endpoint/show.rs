//! `proxystore endpoint show`.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use proxystore::{Error, ErrorKind, Result};

use super::find;
use super::list::state;
use super::run::reached;
use crate::output;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Show {
    /// Its name, id or UUID
    name: String,
    /// Its id alone, as others need it to admit it
    #[arg(long, conflicts_with_all = ["uuid", "path"])]
    id: bool,
    /// Its UUID alone
    #[arg(long, conflicts_with = "path")]
    uuid: bool,
    /// Its directory alone
    #[arg(long)]
    path: bool,
}

const EXAMPLES: &str = "\
Examples:
  proxystore endpoint show site-a
  proxystore endpoint show site-a --id";

pub(crate) fn show(home: &Path, args: &Show) -> Result<ExitCode> {
    let (directory, card) = find(home, &args.name)?;
    if args.id {
        output::data(card.id);
        return Ok(ExitCode::SUCCESS);
    }
    if args.uuid {
        output::data(card.uuid);
        return Ok(ExitCode::SUCCESS);
    }
    if args.path {
        output::data(directory.path().display());
        return Ok(ExitCode::SUCCESS);
    }
    let mut config = directory.config()?;
    for secret in [&mut config.peers.group_secret, &mut config.relay.token] {
        if !secret.is_empty() {
            "(not shown)".clone_into(secret);
        }
    }
    let text = toml_edit::ser::to_string_pretty(&config).map_err(|source| {
        Error::new(ErrorKind::Config, "show an endpoint", "its options have no form")
            .with_source(source)
    })?;
    output::data(format!("# {}, {}", directory.path().display(), state(&directory, &card)));
    for (what, value) in reached(&card) {
        output::data(format!("# {what:<8}{value}"));
    }
    output::data(format!("\n{}", text.trim_end()));
    Ok(ExitCode::SUCCESS)
}

//! `proxystore endpoint remove`.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use proxystore::{Error, ErrorKind, Result};

use super::find;
use super::list::state;
use crate::output;

const REMOVE: &str = "remove an endpoint";

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  proxystore endpoint remove site-a\n  proxystore endpoint remove site-a --yes"
)]
pub(crate) struct Remove {
    /// Its name, id or UUID
    pub(crate) name: String,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

pub(crate) fn remove(home: &Path, args: &Remove) -> Result<ExitCode> {
    let (directory, card) = find(home, &args.name)?;
    let state = state(&directory, &card);
    if state == "running" || state.starts_with("on ") {
        return Err(Error::new(ErrorKind::Config, REMOVE, "it runs")
            .with("endpoint", &card.name)
            .with("state", state)
            .with_hint(format!("stop it first: `proxystore endpoint stop {}`", card.name)));
    }
    let question = format!(
        "Remove the endpoint {} with its key pair and all that is in {}?",
        card.name,
        directory.path().display()
    );
    match args.yes.then_some(true).or_else(|| output::confirmed(&question)) {
        Some(true) => {}
        Some(false) => {
            output::note("Nothing was removed.");
            return Ok(ExitCode::FAILURE);
        }
        None => {
            return Err(Error::new(ErrorKind::Config, REMOVE, "nobody is there to be asked")
                .with_hint("say --yes"));
        }
    }
    fs::remove_dir_all(directory.path())
        .map_err(|error| Error::io(REMOVE, error).with("directory", directory.path().display()))?;
    output::note(format!("Removed the endpoint {}.", card.name));
    Ok(ExitCode::SUCCESS)
}

//! `proxystore completions` and `proxystore man`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;
use proxystore::{Error, Result};

use crate::output;

const MAN: &str = "write manual pages";

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    proxystore completions bash > ~/.local/share/bash-completion/completions/proxystore\n  \
    proxystore completions zsh > ~/.zfunc/_proxystore\n  \
    proxystore completions fish > ~/.config/fish/completions/proxystore.fish")]
pub(crate) struct Completions {
    /// For which shell
    shell: Shell,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  proxystore man | man -l -\n  \
    proxystore man --dir ~/.local/share/man/man1")]
pub(crate) struct Man {
    /// Where a page for each command is written [default: the page of `proxystore` is printed]
    #[arg(long)]
    dir: Option<PathBuf>,
}

pub(crate) fn completions(args: &Completions, mut command: clap::Command) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "proxystore", &mut script);
    output::raw(&script);
    ExitCode::SUCCESS
}

pub(crate) fn man(args: &Man, command: clap::Command) -> Result<ExitCode> {
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page).map_err(|e| Error::io(MAN, e))?;
        output::raw(&page);
        return Ok(ExitCode::SUCCESS);
    };
    std::fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(command, dir))
        .map_err(|error| Error::io(MAN, error).with("directory", dir.display()))?;
    output::note(format!("The manual pages are in {}", dir.display()));
    Ok(ExitCode::SUCCESS)
}

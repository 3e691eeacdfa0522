//! `proxystore-relay`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use proxystore::Error;

use crate::relay::{Relay, relay};

/// Runs `proxystore-relay` with these arguments; the first is the name of the program.
pub(crate) fn run(args: Vec<OsString>) -> ExitCode {
    crate::begin::<Cli>(args, |cli, home| {
        let log_file = cli.log_dir.map(|dir| dir.join("server.log"));
        if let Some(dir) = log_file.as_ref().and_then(|file| file.parent()) {
            std::fs::create_dir_all(dir).map_err(|error| {
                Error::io("begin the log", error).with("directory", dir.display())
            })?;
        }
        let level = cli.log_level.map(|level| match level.to_ascii_lowercase().as_str() {
            "critical" => "error".into(),
            "warning" => "warn".into(),
            level => level.to_owned(),
        });
        let (config, host, port) = (cli.config, cli.host, cli.port);
        relay(home, &Relay { config, host, port, log_level: level, log_file, ..Relay::default() })
    })
}

/// A relay, where endpoints meet. `proxystore relay` does the same and more.
#[derive(Debug, Parser)]
#[command(name = "proxystore-relay", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    /// Its config.toml
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The address it listens on
    #[arg(long, value_name = "ADDRESS")]
    host: Option<std::net::IpAddr>,
    /// The TCP port
    #[arg(long)]
    port: Option<u16>,
    /// Where `server.log` is written [default: it logs to standard error]
    #[arg(long, value_name = "PATH")]
    log_dir: Option<PathBuf>,
    /// How much is logged
    #[arg(long, value_name = "LEVEL", ignore_case = true,
          value_parser = ["critical", "error", "warning", "info", "debug"])]
    log_level: Option<String>,
}

impl crate::Home for Cli {}

const EXAMPLES: &str = "\
Examples:
  proxystore-relay --port 8700
  proxystore-relay -c relay.toml --log-dir logs";

//! `proxystore endpoint start`, `stop`, `restart` and `reload`.

use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use proxystore::connectors::endpoint::home::Card;
use proxystore::wire::Request;
use proxystore::{Error, ErrorKind, Result};
use proxystore_endpoint::directory::Directory;
use proxystore_endpoint::lock::{Holder, holder, host_name};
use rustix::process::{Pid, Signal, kill_process};

use super::find;
use crate::client::{self, Client};
use crate::{daemon, output};

const STOP: &str = "stop an endpoint";

#[derive(Debug, Args)]
#[command(after_help = START_EXAMPLES)]
pub(crate) struct Start {
    /// Its name, id or UUID
    pub(crate) name: String,
    /// Run in the foreground and log to standard error, as service managers and containers want it
    #[arg(long, overrides_with = "detach")]
    pub(crate) no_detach: bool,
    /// Run as a process of its own, which is the default
    #[arg(long)]
    pub(crate) detach: bool,
    /// What is logged: error, warn, info, debug, trace, or directives such as info,iroh=debug
    /// [default: that of its config.toml]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// How many seconds to wait until it is ready
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) timeout: u64,
    /// Print a unit for systemd instead of starting anything
    #[arg(long)]
    pub(crate) systemd: bool,
}

const START_EXAMPLES: &str = "\
Examples:
  proxystore endpoint start site-a
  proxystore endpoint start site-a --no-detach --log-level debug
  proxystore endpoint start site-a --systemd > ~/.config/systemd/user/proxystore-site-a.service

Options of config.toml may be overridden by the environment:
  PROXYSTORE_ENDPOINT_STORAGE_MEMORY=\"2 GB\" proxystore endpoint start site-a";

#[derive(Debug, Args)]
#[command(after_help = STOP_EXAMPLES)]
pub(crate) struct Stop {
    /// Its name, id or UUID
    pub(crate) name: String,
    /// How many seconds it may take
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) timeout: u64,
    /// Kill it when it takes longer; objects in memory are lost either way unless it persists them
    #[arg(long)]
    pub(crate) force: bool,
}

const STOP_EXAMPLES: &str = "\
Examples:
  proxystore endpoint stop site-a
  proxystore endpoint stop site-a --timeout 5 --force

An endpoint that does not run is no failure.";

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  proxystore endpoint restart site-a")]
pub(crate) struct Restart {
    /// Its name, id or UUID
    name: String,
    /// How many seconds stopping and starting may take each
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    /// Kill it when it takes longer to stop
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
#[command(after_help = RELOAD_EXAMPLES)]
pub(crate) struct Reload {
    /// Its name, id or UUID
    name: String,
}

const RELOAD_EXAMPLES: &str = "\
Examples:
  proxystore endpoint reload site-a

[[peers.allow]] and group_secret count from then on, and peers that are not admitted any more are cut off;
other changes of config.toml count after a restart.";

pub(crate) fn start(home: &Path, args: &Start) -> Result<ExitCode> {
    let (directory, card) = find(home, &args.name)?;
    if args.systemd {
        return unit(home, &card);
    }
    if args.no_detach {
        return daemon::foreground(&directory, args.log_level.as_deref());
    }
    detached(&directory, args.log_level.as_deref(), args.timeout)
}

fn detached(directory: &Directory, level: Option<&str>, seconds: u64) -> Result<ExitCode> {
    daemon::detached(directory, level, Duration::from_secs(seconds))?;
    if let Some(card) = directory.card()? {
        output::note(format!("The endpoint {} runs.", card.name));
        for (what, value) in reached(&card) {
            output::data(format!("{what:<8}{value}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How an endpoint is reached, by what.
pub(super) fn reached(card: &Card) -> Vec<(&'static str, String)> {
    let mut ways = vec![("id", card.id.clone())];
    let socket = card.socket.as_ref().map(|socket| socket.display().to_string());
    let page = card.web.as_ref().map(|web| format!("http://{web}/"));
    for (what, value) in [
        ("socket", socket),
        ("tcp", card.tcp.clone()),
        ("relay", card.relay.clone()),
        ("web", page),
    ] {
        ways.extend(value.map(|value| (what, value)));
    }
    ways
}

pub(crate) fn stop(home: &Path, args: &Stop) -> Result<ExitCode> {
    let (directory, card) = find(home, &args.name)?;
    let stopped = stop_and_wait(&directory, &card, Duration::from_secs(args.timeout), args.force)?;
    let word = if stopped { "stopped" } else { "does not run" };
    output::note(format!("The endpoint {} {word}.", card.name));
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn restart(home: &Path, args: &Restart) -> Result<ExitCode> {
    let (directory, card) = find(home, &args.name)?;
    stop_and_wait(&directory, &card, Duration::from_secs(args.timeout), args.force)?;
    detached(&directory, None, args.timeout)
}

pub(crate) fn reload(home: &Path, args: &Reload) -> Result<ExitCode> {
    let (directory, card) = find(home, &args.name)?;
    client::reload(&directory)?;
    output::note(format!("The endpoint {} read again who is a peer.", card.name));
    Ok(ExitCode::SUCCESS)
}

/// Whether it ran; it does not any more.
fn stop_and_wait(
    directory: &Directory,
    card: &Card,
    patience: Duration,
    force: bool,
) -> Result<bool> {
    let Some(held) = holder(directory) else { return Ok(false) };
    if held.host != host_name() {
        return Err(Error::new(ErrorKind::Config, STOP, "it runs on another host")
            .with("host", held.host)
            .with_hint("stop it there"));
    }
    let asked = Client::connect(directory, Duration::from_secs(5).min(patience))
        .and_then(|mut client| client.ask(&Request::Stop, &[]));
    if asked.is_err() {
        signal(&held, Signal::TERM)?; // it does not answer, but may still hear
    }
    if gone(directory, &card.name, patience) {
        return Ok(true);
    }
    if !force {
        return Err(Error::new(ErrorKind::Timeout, STOP, "it still finishes what it began")
            .with("process", held.pid)
            .with_hint("wait longer with --timeout, or kill it with --force"));
    }
    signal(&held, Signal::KILL)?;
    if gone(directory, &card.name, Duration::from_secs(10)) {
        return Ok(true);
    }
    Err(Error::new(ErrorKind::Timeout, STOP, "it does not even die when killed")
        .with("process", held.pid)
        .with_hint("it waits for a device, most likely: see `ps`"))
}

fn signal(held: &Holder, signal: Signal) -> Result<()> {
    let pid = i32::try_from(held.pid).ok().and_then(Pid::from_raw);
    let Some(pid) = pid else {
        return Err(Error::new(ErrorKind::Corrupt, STOP, "its process has no number"));
    };
    match kill_process(pid, signal) {
        Err(rustix::io::Errno::SRCH) | Ok(()) => Ok(()),
        Err(error) => Err(Error::io(STOP, error.into()).with("process", held.pid)),
    }
}

/// Waits until nobody runs it.
fn gone(directory: &Directory, name: &str, patience: Duration) -> bool {
    let (started, mut told) = (Instant::now(), Duration::from_secs(3));
    while holder(directory).is_some() {
        if started.elapsed() >= patience {
            return false;
        }
        if started.elapsed() >= told {
            output::note(format!("{name} is stopping ..."));
            told += Duration::from_secs(5);
        }
        thread::sleep(Duration::from_millis(20));
    }
    true
}

fn unit(home: &Path, card: &Card) -> Result<ExitCode> {
    let program = std::env::current_exe()
        .map_err(|error| Error::io("write a unit for systemd", error))?
        .display()
        .to_string();
    let (name, home) = (&card.name, home.display());
    output::data(format!(
        "[Unit]\n\
         Description=ProxyStore endpoint {name}\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         \n\
         [Service]\n\
         Environment=\"PROXYSTORE_HOME={home}\"\n\
         ExecStart=\"{program}\" endpoint start {name} --no-detach\n\
         Restart=on-failure\n\
         LimitNOFILE=65536\n\
         \n\
         [Install]\n\
         WantedBy=default.target"
    ));
    output::note("Save it as a unit, then: systemctl --user enable --now UNIT");
    Ok(ExitCode::SUCCESS)
}

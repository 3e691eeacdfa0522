//! `proxystore endpoint ping`.

use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use proxystore::wire::{Answer, Pong, Request};
use proxystore::{Error, ErrorKind, Result};

use super::{find, peer};
use crate::client::Client;
use crate::output;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Ping {
    /// The endpoint of this site that is asked: its name, id or UUID
    name: String,
    /// The peer it is to reach: its id, or what it is called here [default: the endpoint itself]
    peer: Option<String>,
    /// How many times
    #[arg(short, long, default_value_t = 1)]
    count: u32,
    /// Seconds between two
    #[arg(short, long, default_value_t = 1.0)]
    interval: f64,
    /// How many seconds an answer may take
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
}

const EXAMPLES: &str = "\
Examples:
  proxystore endpoint ping site-a
  proxystore endpoint ping site-a site-b -c 5

Prints the path (local, direct or relayed), by way of what, and the time there and back.";

pub(crate) fn ping(home: &Path, args: &Ping) -> Result<ExitCode> {
    let (directory, card) = find(home, &args.name)?;
    let id = match &args.peer {
        Some(called) => peer(home, &directory.config()?, called)?,
        None => card.endpoint()?,
    };
    let interval = Duration::try_from_secs_f64(args.interval).unwrap_or(Duration::from_secs(1));
    let mut client = Client::connect(&directory, Duration::from_secs(args.timeout))?;
    for i in 0..args.count {
        if i > 0 {
            thread::sleep(interval);
        }
        let started = Instant::now();
        let Answer::Pong(pong) = client.ask(&Request::Ping(id), &[])?.0 else {
            return Err(Error::new(ErrorKind::Corrupt, "ping an endpoint", "no pong came"));
        };
        output::data(line(&id.short(), &pong, started.elapsed()));
    }
    Ok(ExitCode::SUCCESS)
}

fn line(who: &str, pong: &Pong, took: Duration) -> String {
    let via = if pong.via.is_empty() { String::new() } else { format!(" by {}", pong.via) };
    let there = match pong.round_trip_us {
        0 => String::new(),
        us => format!(", {:.3} ms to the peer", Duration::from_micros(us).as_secs_f64() * 1e3),
    };
    format!("{who}: {}{via}, {:.3} ms in all{there}", pong.path, took.as_secs_f64() * 1e3)
}

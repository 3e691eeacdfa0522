//! `proxystore endpoint bench`.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use proxystore::connectors::endpoint::EndpointConnector;
use proxystore::connectors::{Connector, ConnectorConfig, GetOptions, PutOptions, Value};
use proxystore::payload::Parts;
use proxystore::{Error, ErrorKind, Result};
use proxystore_endpoint::config::size;

use super::{find, peer};
use crate::output;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Bench {
    /// The endpoint of this site that is asked: its name, id or UUID
    name: String,
    /// The peer that keeps the objects: its id, or what it is called here [default: the endpoint itself]
    peer: Option<String>,
    /// How long each object is; may be repeated [default: 1 KB, 1 MB and 32 MB]
    #[arg(long = "size", value_name = "SIZE", value_parser = bytes)]
    sizes: Vec<u64>,
    /// How many objects of each size
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
}

const EXAMPLES: &str = "\
Examples:
  proxystore endpoint bench site-a
  proxystore endpoint bench site-a site-b --size 1MB --size 100MB --count 5

One object after another, as programs put and get them: on the host of the daemon, large ones are handed over
in shared memory.";

const MEASURE: &str = "measure an endpoint";

fn bytes(text: &str) -> Result<u64, String> {
    size::parse(text).ok_or_else(|| "write a number of bytes, or \"64 MiB\", \"1.5 GB\"".into())
}

pub(crate) fn bench(home: &Path, args: &Bench) -> Result<ExitCode> {
    let (directory, card) = find(home, &args.name)?;
    let endpoint = match &args.peer {
        Some(called) => peer(home, &directory.config()?, called)?,
        None => card.endpoint()?,
    };
    let mut config = ConnectorConfig::new(format!("endpoint:{endpoint}"));
    // By way of this daemon, wherever else the peer could be reached.
    let home = directory.path().to_string_lossy().into_owned();
    config.options.insert("home".into(), Value::Text(home));
    let connector = EndpointConnector::open(&config)?;
    let sizes = match args.sizes.as_slice() {
        [] => &[1_000, 1_000_000, 32_000_000],
        sizes => sizes,
    };
    let mut rows = Vec::new();
    for &len in sizes {
        output::note(format!("{} objects of {} ...", args.count, size::format(len)));
        let data = vec![0x5a; len as usize];
        let (mut puts, mut gets) = (Vec::new(), Vec::new());
        for _ in 0..args.count {
            let started = Instant::now();
            let key = connector.put(&Parts::from(&data[..]), &PutOptions::default())?;
            puts.push(started.elapsed());
            let started = Instant::now();
            let got = connector.get(&key, &GetOptions::default());
            gets.push(started.elapsed());
            let same = got.map(|got| got.is_some_and(|got| got[..] == data[..]));
            connector.evict(&key)?;
            if !same? {
                return Err(Error::new(ErrorKind::Corrupt, MEASURE, "what came back is different")
                    .with("key", key.id())
                    .with_hint("has it enough memory and disk? see `proxystore endpoint status`"));
            }
        }
        for (what, times) in [("put", &mut puts), ("get", &mut gets)] {
            rows.push(row(what, len, times));
        }
    }
    if connector.capabilities().zero_copy_get && args.peer.is_none() {
        output::note(
            "Large objects are read where the daemon has them: their MB/s is no bandwidth.",
        );
    }
    connector.close(true)?;
    output::table(&["WHAT", "SIZE", "MEDIAN MS", "WORST MS", "MB/S"], &rows);
    Ok(ExitCode::SUCCESS)
}

fn row(what: &str, len: u64, times: &mut [Duration]) -> Vec<String> {
    times.sort();
    let median = times[times.len() / 2];
    let worst = times.last().copied().unwrap_or_default();
    let milliseconds = |time: Duration| format!("{:.3}", time.as_secs_f64() * 1e3);
    #[expect(clippy::cast_precision_loss, reason = "few digits are shown")]
    let rate = len as f64 / 1e6 / median.as_secs_f64().max(1e-9);
    let cells = [what.to_owned(), size::format(len), milliseconds(median), milliseconds(worst)];
    cells.into_iter().chain([format!("{rate:.1}")]).collect()
}

//! What shared memory costs, next to what it cannot be faster than.
//!
//! `cargo run --release -p proxystore --example shm_bench`
//!
//! Every row runs all contenders interleaved in the same loop and prints medians, with ratios to
//! a copy into rotating buffers (put), to a plain `write` of a fresh file (cold put), and to the
//! sum of an array in place (get and sum).
#![allow(clippy::print_stdout, reason = "a report on the terminal")]

use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write;
use std::time::{Duration, Instant};

use proxystore::connectors::shm::ShmConnector;
use proxystore::connectors::{Access, Connector, ConnectorConfig, GetOptions, PutOptions, Value};
use proxystore::key::unique_id;
use proxystore::payload::Parts;
use proxystore::{Key, Result};

const ROTATION: usize = 3;

fn main() -> Result<()> {
    let name = format!("bench-{}", unique_id()?);
    let config = ConnectorConfig::new(format!("shm://{name}"));
    let connector = ShmConnector::open(&config)?;
    let mut cold = config.clone();
    cold.options.insert("pool_bytes".into(), Value::Int(0));
    let cold = ShmConnector::open(&cold)?;
    let consumer = ShmConnector::open(&config)?;
    println!("medians in microseconds");
    for (size, rounds) in [(1000, 2000), (1 << 20, 300), (10 << 20, 60), (100 << 20, 15)] {
        row(&connector, &cold, &consumer, size, rounds)?;
    }
    drop((cold, consumer));
    connector.close(true)
}

#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn measure<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = black_box(work());
        self.0.push(start.elapsed());
        result
    }

    fn median(&mut self) -> f64 {
        self.0.sort_unstable();
        self.0[self.0.len() / 2].as_secs_f64() * 1e6
    }
}

fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().fold(0_u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
    rest.iter().fold(words, |sum, byte| sum.wrapping_add(u64::from(*byte)))
}

fn row(
    connector: &ShmConnector,
    cold: &ShmConnector,
    consumer: &ShmConnector,
    size: usize,
    rounds: usize,
) -> Result<()> {
    let source: Vec<u8> = (0..=255_u8).cycle().take(size).collect();
    let mut targets = vec![vec![1_u8; size]; ROTATION];
    let mut keys: Vec<Key> = Vec::new();
    let [mut copy, mut put, mut fresh, mut write] = <[Times; 4]>::default();
    let [mut get, mut in_place, mut shared, mut private] = <[Times; 4]>::default();
    let [mut allocate, mut publish] = <[Times; 2]>::default();
    let options = PutOptions::default();
    let file = format!("/dev/shm/bench-{}", std::process::id());
    for round in 0..rounds + 2 * ROTATION {
        let target = &mut targets[round % ROTATION];
        copy.measure(|| target.copy_from_slice(black_box(&source)));
        let key = put.measure(|| connector.put(&Parts::from(&source[..]), &options))?;
        let read_only = GetOptions { access: Access::ReadOnly, ..GetOptions::default() };
        get.measure(|| consumer.get(&key, &read_only))?;
        in_place.measure(|| sum(black_box(target)));
        shared.measure(|| consumer.get(&key, &read_only).map(|b| sum(&b.unwrap_or_else(empty))))?;
        let copied = GetOptions::default();
        private.measure(|| consumer.get(&key, &copied).map(|b| sum(&b.unwrap_or_else(empty))))?;
        keys.push(key);
        if keys.len() >= ROTATION {
            connector.evict(&keys.remove(0))?;
        }
        let key = fresh.measure(|| cold.put(&Parts::from(&source[..]), &options))?;
        cold.evict(&key)?;
        write
            .measure(|| File::create(&file).and_then(|mut file| file.write_all(&source)))
            .map_err(|source| proxystore::Error::io("write a file", source))?;
        let _ = fs::remove_file(&file);
        if size > 4096 {
            let memory = allocate.measure(|| connector.allocate(size))?;
            let mut parts = Parts::default();
            parts.push(&source[..4096]);
            parts.push(&memory);
            let key = publish.measure(|| connector.put(&parts, &options))?;
            drop(memory);
            connector.evict(&key)?;
        }
        if round == 2 * ROTATION {
            // What came before was the way to the steady state.
            for times in [&mut copy, &mut put, &mut get, &mut in_place, &mut shared, &mut private] {
                times.0.clear();
            }
        }
    }
    for key in keys {
        connector.evict(&key)?;
    }
    let (copy, put, fresh, write) = (copy.median(), put.median(), fresh.median(), write.median());
    let (get, in_place) = (get.median(), in_place.median());
    let (shared, private) = (shared.median(), private.median());
    println!("\n{size} bytes");
    println!("  copy {copy:.1}  put {put:.1} ({:.2}x)", put / copy);
    println!("  write {write:.1}  cold put {fresh:.1} ({:.2}x)", fresh / write);
    println!("  get {get:.1}");
    println!("  sum {in_place:.1}  get and sum, read-only {shared:.1} ({:.2}x)", shared / in_place);
    println!("  get and sum, private {private:.1} ({:.2}x)", private / in_place);
    if size > 4096 {
        println!("  allocate {:.1}  put of it {:.1}", allocate.median(), publish.median());
    }
    Ok(())
}

fn empty() -> proxystore::Buffer {
    proxystore::Buffer::zeroed(0)
}

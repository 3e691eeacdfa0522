//! Streams whose producer, consumers and broker are killed at random, over ten thousand events:
//! brokers that deliver at least once lose none, and nothing stays in the store.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use proxystore::brokers::{self, SubscribeOptions};
use proxystore::patterns::stream::{Bound, StreamConsumer, StreamProducer, WhenFull};
use proxystore::{ErrorKind, Result, Store};

use crate::process;

const EVENTS: u32 = 10_000;
const CONSUMERS: usize = 2;

/// Every so many events the producer makes sure of them.
const STRIDE: u32 = 100;

/// What a killed producer stored and did not publish vanishes by itself.
const TTL: Duration = Duration::from_secs(30);

/// Consumers are not so far behind that objects vanish before they come to them.
const BOUND: Bound = Bound { bytes: 2_000_000, when_full: WhenFull::Wait };

/// Longer than all of it takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_mins(3);

/// A server that can be killed, and started again with what it had.
pub(crate) trait Server {
    /// The URL of the broker.
    fn url(&self) -> String;
    /// Kills it, and starts it again.
    fn kill(&mut self);
}

/// A process that does not outlive the test, however that ends.
struct Role(Child);

impl Role {
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An object of an event: large enough to be stored.
fn object(number: u32) -> Vec<u32> {
    vec![number; 1200 + (number % 100) as usize]
}

/// Runs everything against a server.
pub(crate) fn run(server: &mut dyn Server) {
    let folder = tempfile::tempdir().unwrap();
    let objects = folder.path().join("objects");
    fs::create_dir(&objects).unwrap();
    fs::create_dir(folder.path().join("seen")).unwrap();
    let argument = format!("{} {}", server.url(), folder.path().display());
    let errors = OpenOptions::new().create(true).append(true).open(folder.path().join("errors"));
    let (log, starts) = (errors.unwrap(), Cell::new(0));
    let errors = || fs::read_to_string(folder.path().join("errors")).unwrap();
    let start = |role: usize| {
        starts.set(starts.get() + 1);
        let name = if role == 0 { "produce" } else { "consume" };
        let mut command = process::command(
            &format!("stream_kills::role_{name}"),
            &format!("{argument} {}", starts.get()),
        );
        // Whoever is killed cannot have its output read from a pipe.
        Role(command.stdout(Stdio::null()).stderr(log.try_clone().unwrap()).spawn().unwrap())
    };
    let mut roles: Vec<Role> = (0..=CONSUMERS).map(start).collect();
    let (end, mut kills, mut random) = (Instant::now() + PATIENCE, [0; 3], 1_u32);
    let mut before = 0;
    loop {
        assert_eq!(errors(), "", "what the processes have to say");
        assert!(Instant::now() < end, "{} events came", seen(folder.path()).len());
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        thread::sleep(Duration::from_millis(u64::from(80 + (random >> 24))));
        let role = (random >> 8) as usize % (CONSUMERS + 1);
        let (is_done, now) = (confirmed(folder.path()) == EVENTS, seen(folder.path()).len());
        for (role, process) in roles.iter_mut().enumerate() {
            if let Some(status) = process.0.try_wait().unwrap() {
                let is_over = role == 0 && status.success() && confirmed(folder.path()) == EVENTS;
                assert!(is_over, "process {role} ended, {status}: {}", errors());
            }
        }
        if is_done && now == EVENTS as usize {
            break;
        }
        if now < before + 50 {
            continue; // those who were started last have not come far
        }
        before = now;
        if role > 0 || !is_done {
            roles[role].kill();
            kills[usize::from(role > 0)] += 1;
            roles[role] = start(role);
        }
        if !is_done && kills[2] < 3 && kills[0] + kills[1] > 4 * (kills[2] + 1) {
            server.kill();
            kills[2] += 1;
        }
    }
    assert_eq!(seen(folder.path()), (0..EVENTS).collect());
    assert!(kills.iter().all(|kills| *kills > 0), "{kills:?} of producer, consumers, broker");
    // The consumers go on: with what was sent twice, and what the killed ones had.
    let end = Instant::now() + PATIENCE;
    let url = format!("file://{}", objects.display());
    while stored(&objects) > 0 {
        assert!(Instant::now() < end, "{} objects stay", stored(&objects));
        thread::sleep(Duration::from_millis(200));
        // What vanished is swept when the channel is used.
        proxystore::connectors::open(&proxystore::ConnectorConfig::new(&url)).unwrap();
    }
    drop(roles);
    assert_eq!(errors(), "");
}

/// Objects that are there, in whichever state.
fn stored(objects: &Path) -> usize {
    let visible = |name: &std::ffi::OsStr| !name.to_string_lossy().starts_with('.');
    fs::read_dir(objects)
        .unwrap()
        .filter(|file| visible(&file.as_ref().unwrap().file_name()))
        .count()
}

/// How many events the producer made sure of.
fn confirmed(folder: &Path) -> u32 {
    fs::read_to_string(folder.join("confirmed")).map_or(0, |text| text.trim().parse().unwrap())
}

/// The events that consumers had in hand.
fn seen(folder: &Path) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    for file in fs::read_dir(folder.join("seen")).unwrap() {
        let mut bytes = Vec::new();
        File::open(file.unwrap().path()).unwrap().read_to_end(&mut bytes).unwrap();
        found.extend(bytes.chunks_exact(4).map(|n| u32::from_le_bytes(n.try_into().unwrap())));
    }
    found
}

/// What a role was told: the broker, the folder, its name.
fn told() -> Option<(String, PathBuf, String)> {
    let argument = process::argument()?;
    let mut words = argument.split(' ').map(str::to_owned);
    Some((words.next()?, words.next()?.into(), words.collect()))
}

fn store(folder: &Path) -> Store {
    Store::open(&format!("file://{}", folder.join("objects").display())).unwrap()
}

/// Brokers come and go; whatever else fails is a fault.
fn passing<T>(result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) if matches!(error.kind(), ErrorKind::Io | ErrorKind::Timeout) => None,
        Err(error) => panic!("{error:?}"),
    }
}

/// Sends all events, from the last that it is sure of.
#[test]
fn role_produce() {
    let Some((url, folder, _)) = told() else { return };
    let publisher = brokers::open(&url).unwrap().publisher().unwrap();
    let producer = StreamProducer::builder(publisher)
        .store(&store(&folder))
        .ttl(TTL)
        .bound(BOUND)
        .build()
        .unwrap();
    while confirmed(&folder) < EVENTS {
        let start = confirmed(&folder);
        let stride = || {
            for number in start..start + STRIDE {
                producer.send("t", object(number))?;
            }
            producer.flush()
        };
        if passing(stride()).is_some() {
            // In one step, or the reader could see half of it.
            fs::write(folder.join("new"), (start + STRIDE).to_string()).unwrap();
            fs::rename(folder.join("new"), folder.join("confirmed")).unwrap();
        }
    }
}

/// Notes which events it has in hand, until it is killed.
#[test]
fn role_consume() {
    let Some((url, folder, name)) = told() else { return };
    let log = folder.join("seen").join(name);
    let mut log = OpenOptions::new().create(true).append(true).open(log).unwrap();
    let mut options = SubscribeOptions::default();
    options.redeliver_after = Duration::from_secs(1);
    options.prefetch = 8;
    loop {
        let subscriber = brokers::open(&url).unwrap().subscriber(&["t"], &options);
        let Some(subscriber) = passing(subscriber) else { continue };
        let consumer = StreamConsumer::new(subscriber);
        for item in consumer.iter::<Vec<u32>>() {
            let Some(item) = passing(item) else { break };
            let found = match item.proxy.resolve() {
                Ok(found) => found,
                // A killed broker may have forgotten that it was acknowledged.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => panic!("{error:?}"),
            };
            assert_eq!(*found, object(found[0]));
            log.write_all(&found[0].to_le_bytes()).unwrap();
        }
    }
}

#[cfg(feature = "redis")]
mod redis {
    use crate::servers::{Kind, Redis, needs_redis};

    struct Streams(Redis);

    impl super::Server for Streams {
        fn url(&self) -> String {
            format!("stream+{}", self.0.url())
        }

        fn kill(&mut self) {
            self.0.kill();
            assert!(self.0.restart());
        }
    }

    #[test]
    fn streams_of_redis_lose_nothing() {
        needs_redis!();
        let arguments = &["--appendonly", "yes", "--appendfsync", "always"];
        super::run(&mut Streams(Redis::start(Kind { arguments, ..Kind::default() })));
    }
}

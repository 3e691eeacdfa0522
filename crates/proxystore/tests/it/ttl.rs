//! Times to live: what expired is given back, whoever put it and however that ended.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use proxystore::Store;
use proxystore::connectors::file::FileConnector;
use proxystore::connectors::shm::{ShmConnector, sweep};
use proxystore::connectors::{Connector, ConnectorConfig, PutOptions, Value, open};
use proxystore::key::Key;
use proxystore::payload::Parts;

use crate::process;

const PATIENCE: Duration = Duration::from_secs(30);
const SIZES: [usize; 4] = [0, 1000, 100_000, 900_000];

fn put(connector: &dyn Connector, key: Option<Key>, size: usize, ttl: Option<Duration>) -> Key {
    let options = PutOptions { key, ttl, ..PutOptions::default() };
    connector.put(&Parts::from(&vec![7; size][..]), &options).unwrap()
}

fn await_absence(connector: &dyn Connector, key: &Key) {
    let start = Instant::now();
    while connector.exists(key).unwrap() {
        assert!(start.elapsed() < PATIENCE, "the object does not vanish");
        thread::sleep(Duration::from_millis(5));
    }
}

/// How many files there are below a directory, apart from those for which `ignored` holds.
fn files(directory: &Path, ignored: fn(&str) -> bool) -> usize {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let count = |entry: fs::DirEntry| {
        if entry.file_type().unwrap().is_dir() {
            return files(&entry.path(), ignored);
        }
        usize::from(!ignored(entry.file_name().to_str().unwrap()))
    };
    entries.map(count).sum()
}

/// Another process puts objects, lasting ones among them, and is killed.
fn killed(url: &str, expected: &dyn Connector) -> (Vec<Key>, Key) {
    let mut command = process::command("ttl::role_puts_and_waits", url);
    let mut child = command.stderr(Stdio::inherit()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut keys: Vec<Key> = lines
        .filter_map(|line| Some(Key::latest(line.split_once("key ")?.1)))
        .take(SIZES.len() * 2 + 1)
        .collect();
    child.kill().unwrap();
    child.wait().unwrap();
    let lasting = keys.pop().unwrap();
    for key in &keys {
        await_absence(expected, key);
    }
    (keys, lasting)
}

#[test]
#[expect(clippy::print_stdout, reason = "how a role answers")]
fn role_puts_and_waits() {
    let Some(url) = process::argument() else { return };
    let connector = open(&ConnectorConfig::new(url)).unwrap();
    let ttl = Some(Duration::from_millis(100));
    println!();
    for size in SIZES {
        let deferred = connector.new_key().unwrap();
        for key in [None, Some(deferred)] {
            println!("key {}", put(&*connector, key, size, ttl).id());
        }
    }
    println!("key {}", put(&*connector, None, 1000, None).id());
    thread::sleep(PATIENCE * 10);
}

#[test]
fn a_directory_gets_back_what_a_killed_process_put() {
    let base = tempfile::tempdir().unwrap();
    let connector = FileConnector::new(base.path()).unwrap();
    let (keys, lasting) = killed(&connector.config().url, &connector);
    let is_mark = |name: &str| name == ".expiring";
    assert_eq!(files(base.path(), is_mark), keys.len() + 1, "absent, but not removed yet");
    FileConnector::new(base.path()).unwrap();
    assert_eq!(files(base.path(), is_mark), 1, "removed when somebody opens the channel");
    assert!(connector.exists(&lasting).unwrap());
    connector.close(true).unwrap();
    assert!(!base.path().exists(), "nothing is left");
}

#[test]
fn shared_memory_gets_back_what_a_killed_process_put() {
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    let url = format!("shm://demo?root={}", root.path().display());
    let connector = ShmConnector::open(&ConnectorConfig::new(&url)).unwrap();
    let (keys, lasting) = killed(&url, &connector);
    let is_no_object = |name: &str| ["lock", "expiring", "links"].contains(&name);
    // Each object has a file, those under a key made before have a link, and there is its owner.
    assert_eq!(files(root.path(), is_no_object), keys.len() / 2 * 3 + 2);
    let report = sweep(Some(root.path())).unwrap();
    assert_eq!((report.held, report.objects), (vec!["demo".to_owned()], keys.len() as u64));
    assert!(report.bytes > 2 * SIZES.iter().sum::<usize>() as u64);
    ShmConnector::open(&ConnectorConfig::new(&url)).unwrap(); // clears up after the owner
    assert_eq!(files(root.path(), is_no_object), 1);
    assert!(connector.exists(&lasting).unwrap());
    connector.close(true).unwrap();
}

#[test]
fn a_persistent_session_gives_back_what_expired() {
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    let options = BTreeMap::from([("persist".to_owned(), Value::Bool(true))]);
    let url = format!("shm://demo?root={}", root.path().display());
    let config = ConnectorConfig { options, ..ConnectorConfig::new(url) };
    let connector = ShmConnector::open(&config).unwrap();
    for size in SIZES {
        put(&connector, None, size, Some(Duration::ZERO));
    }
    let lasting = put(&connector, None, 10, None);
    connector.close(false).unwrap();
    let report = sweep(Some(root.path())).unwrap();
    assert_eq!((report.persistent, report.objects), (vec!["demo".to_owned()], SIZES.len() as u64));
    let connector = ShmConnector::open(&config).unwrap();
    assert!(connector.exists(&lasting).unwrap());
    connector.close(true).unwrap();
}

#[test]
fn expired_segments_are_used_again() {
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    let url = format!("shm://demo?root={}", root.path().display());
    let connector = ShmConnector::open(&ConnectorConfig::new(url)).unwrap();
    for _ in 0..20 {
        put(&connector, None, 1 << 20, Some(Duration::ZERO));
        sweep(Some(root.path())).unwrap();
    }
    let is_no_segment = |name: &str| !name.starts_with("s-");
    assert!(files(root.path(), is_no_segment) <= 2);
    connector.close(true).unwrap();
}

#[test]
fn files_of_others_stay_whatever_their_mode_and_time() {
    let base = tempfile::tempdir().unwrap();
    let connector = FileConnector::new(base.path()).unwrap();
    let key = put(&connector, None, 10, Some(Duration::ZERO));
    let theirs = base.path().join("notes");
    fs::write(&theirs, "mine").unwrap();
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o1600)).unwrap();
    let file = fs::File::options().write(true).open(&theirs).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    connector.expire(&[Key::latest("notes")], None).unwrap();
    FileConnector::new(base.path()).unwrap();
    assert!(!base.path().join(key.id()).exists());
    assert_eq!(fs::metadata(&theirs).unwrap().permissions().mode() & 0o7777, 0o1600);
}

#[test]
fn arrays_made_in_the_channel_expire_and_their_memory_starts_anew() {
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    let store = Store::open(&format!("shm://demo?root={}", root.path().display())).unwrap();
    let put = |ttl| {
        let array = store.empty::<f64>(&[50_000]).unwrap();
        store.put_with(&array, &PutOptions { ttl, ..PutOptions::default() }).unwrap()
    };
    for _ in 0..3 {
        let gone = put(Some(Duration::ZERO));
        assert!(!store.exists(&gone).unwrap());
        sweep(Some(root.path())).unwrap();
        let lasting = put(None);
        assert!(store.exists(&lasting).unwrap());
        store.evict(&lasting).unwrap();
    }
    store.close(true).unwrap();
}

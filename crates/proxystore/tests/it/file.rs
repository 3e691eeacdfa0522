//! What is special about the file channel.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use proxystore::connectors::file::FileConnector;
use proxystore::connectors::{Connector, ConnectorConfig, GetOptions, PutOptions, Value, open};
use proxystore::error::{Error, ErrorKind, Result};
use proxystore::key::Key;
use proxystore::payload::Parts;
use rustix::fs::{FlockOperation, flock};
use tempfile::{TempDir, tempdir};

use crate::process;

fn put(connector: &dyn Connector, bytes: &[u8]) -> Result<Key> {
    connector.put(&Parts::from(bytes), &PutOptions::default())
}

fn fill(connector: &dyn Connector, key: &Key, bytes: &[u8]) -> Result<Key> {
    let options = PutOptions { key: Some(key.clone()), ..PutOptions::default() };
    connector.put(&Parts::from(bytes), &options)
}

fn get(connector: &dyn Connector, key: &Key) -> Option<proxystore::Buffer> {
    connector.get(key, &GetOptions::default()).unwrap()
}

/// The names in a directory, in order; none when there is no such directory.
fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[track_caller]
fn assert_error<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind, path: &Path) -> Error {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "names the path: {error}");
    assert!(error.hint().is_some(), "says what to do: {error}");
    error
}

#[test]
fn paths_are_made_absolute_at_once() {
    let base = tempdir().unwrap();
    let up = "../".repeat(std::env::current_dir().unwrap().components().count());
    let relative = format!("{up}{}/./objects/", base.path().strip_prefix("/").unwrap().display());
    let connector = FileConnector::new(&relative).unwrap();
    assert!(connector.directory().is_absolute());
    let key = put(&connector, b"x").unwrap();
    let same = FileConnector::new(base.path().join("objects")).unwrap();
    assert!(same.exists(&key).unwrap());
    assert_eq!(same.directory(), base.path().join("objects"));
}

#[test]
fn any_directory_has_a_url() {
    let base = tempdir().unwrap();
    for name in ["a b", "100%", "é", "q?x#y", "%41", "back\\slash", "new\nline"] {
        check_url(&base.path().join(name));
    }
    check_url(&base.path().join(OsStr::from_bytes(b"\xff\xfe")));
}

fn check_url(directory: &Path) {
    let connector = FileConnector::new(directory).unwrap();
    let key = put(&connector, b"x").unwrap();
    let config = connector.config();
    assert!(config.url.is_ascii() && config.url.starts_with("file:///"), "{}", config.url);
    let again = FileConnector::open(&config).unwrap();
    assert_eq!(again.directory(), directory);
    assert_eq!(again.config(), config);
    assert!(again.exists(&key).unwrap());
}

#[test]
fn wrong_configurations_are_refused_by_name() {
    for url in ["file:", "file://host/dir", "file:///%zz", "file:///x?clear=true"] {
        let error = open(&ConnectorConfig::new(url)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
        assert!(error.to_string().contains(url), "{error}");
    }
    for (name, value) in [("clean", Value::Bool(true)), ("clear", Value::Int(1))] {
        let options = BTreeMap::from([(name.to_owned(), value)]);
        let config = ConnectorConfig { options, ..ConnectorConfig::new("file:///tmp") };
        let error = open(&config).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn options_travel_with_the_configuration() {
    let base = tempdir().unwrap();
    let mut config = FileConnector::new(base.path()).unwrap().config();
    config.options.insert("clear".to_owned(), Value::Bool(true));
    let connector = FileConnector::open(&config).unwrap();
    assert_eq!(connector.config(), config);
    let key = put(&connector, b"x").unwrap();
    connector.close(false).unwrap();
    assert!(FileConnector::open(&config).unwrap().exists(&key).unwrap(), "close decides");
}

#[test]
fn clear_removes_objects_and_nothing_else() {
    let base = tempdir().unwrap();
    let directory = base.path().join("mixed");
    let connector = FileConnector::new(&directory).unwrap();
    for size in [0, 10, 500_000] {
        put(&connector, &vec![1; size]).unwrap();
    }
    fs::write(directory.join("notes.txt"), "mine").unwrap();
    fs::write(directory.join("empty"), "").unwrap();
    fs::write(directory.join(".hidden"), vec![0; 1000]).unwrap();
    fs::create_dir(directory.join("deadbeef")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", directory.join("link")).unwrap();
    connector.close(true).unwrap();
    assert_eq!(names(&directory), [".hidden", "deadbeef", "empty", "link", "notes.txt"]);

    let directory = base.path().join("pure");
    let connector = FileConnector::new(&directory).unwrap();
    put(&connector, b"x").unwrap();
    let other = FileConnector::new(&directory).unwrap();
    connector.close(true).unwrap();
    assert!(!directory.exists(), "an empty directory goes too");
    assert!(get(&other, &Key::latest("x")).is_none());
    let key = put(&other, b"again").unwrap();
    assert_eq!(&get(&other, &key).unwrap()[..], b"again");
}

#[test]
fn a_path_that_is_a_file_is_refused() {
    let base = tempdir().unwrap();
    let file = base.path().join("file");
    fs::write(&file, "x").unwrap();
    assert_error(FileConnector::new(&file), ErrorKind::Config, &file);
    let under = file.join("below");
    assert_error(FileConnector::new(&under), ErrorKind::Config, &under);
    assert_eq!(fs::read(&file).unwrap(), b"x");
}

#[test]
fn a_directory_of_another_user_is_refused() {
    let base = tempdir().unwrap(); // for its owner only
    let path = base.path().join("objects");
    let mut command = process::command("file::role_opens_a_forbidden_directory", "");
    command.env("DIRECTORY", &path).uid(65534);
    match command.spawn() {
        Ok(child) => drop(process::finish(child)),
        // Only root may run as somebody else, and that user may not be let at this binary.
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{error}"),
    }
}

#[test]
fn role_opens_a_forbidden_directory() {
    if process::argument().is_some() {
        let path = PathBuf::from(std::env::var_os("DIRECTORY").unwrap());
        assert_error(FileConnector::new(&path), ErrorKind::Permission, &path);
    }
}

/// A small file system in memory, or `None` without the right to mount one.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(options: &str) -> Option<Self> {
        let disk = tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(disk.path());
        let is_mounted = mount.output().is_ok_and(|output| output.status.success());
        is_mounted.then_some(Self(disk))
    }

    fn remount(&self, options: &str) {
        let mut mount = Command::new("mount");
        mount.args(["-o", options]).arg(self.0.path());
        assert!(mount.status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_an_error_that_leaves_nothing_behind() {
    let Some(disk) = SmallDisk::mount("size=4m") else { return };
    let path = disk.0.path().join("objects");
    let connector = FileConnector::new(&path).unwrap();
    for size in [5 << 20, 50 << 20] {
        let error = assert_error(put(&connector, &vec![1; size]), ErrorKind::Full, &path);
        assert!(error.kind().is_retryable());
        assert!(names(&path.join(".writing")).is_empty(), "no temporary file stays");
    }
    let deferred = connector.new_key().unwrap();
    assert_error(fill(&connector, &deferred, &vec![1; 5 << 20]), ErrorKind::Full, &path);
    assert!(!connector.exists(&deferred).unwrap());

    let mut keys = Vec::new();
    let error = loop {
        match put(&connector, &vec![2; 100_000]) {
            Ok(key) => keys.push(key),
            Err(error) => break error,
        }
        assert!(keys.len() < 100);
    };
    assert_eq!(error.kind(), ErrorKind::Full);
    for key in &keys {
        assert!(get(&connector, key).unwrap().iter().all(|byte| *byte == 2));
    }
    for key in &keys[..2] {
        connector.evict(key).unwrap();
    }
    put(&connector, &vec![3; 100_000]).unwrap();
}

#[test]
fn a_read_only_mount_can_be_read_from() {
    let Some(disk) = SmallDisk::mount("size=4m") else { return };
    let path = disk.0.path().join("objects");
    let key = put(&FileConnector::new(&path).unwrap(), &vec![5; 300_000]).unwrap();
    disk.remount("remount,ro");
    let connector = FileConnector::new(&path).unwrap();
    assert_eq!(get(&connector, &key).unwrap().len(), 300_000);
    assert_error(put(&connector, b"x"), ErrorKind::Permission, &path);
    assert_error(connector.evict(&key), ErrorKind::Permission, &path);
    let absent = disk.0.path().join("absent");
    assert_error(FileConnector::new(&absent), ErrorKind::Permission, &absent);
}

#[test]
fn a_killed_writer_leaves_no_partial_object() {
    const OBJECT: usize = 3 << 20;
    let base = tempdir().unwrap();
    let mut saw_leftovers = false;
    for _ in 0..10 {
        let directory = base.path().join("objects");
        let mut command = process::command("file::role_puts_until_killed", &OBJECT.to_string());
        let mut child = command.env("DIRECTORY", &directory).spawn().unwrap();
        let start = Instant::now();
        while names(&directory).len() < 12 && start.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();

        let published = names(&directory);
        assert!(published.len() > 10, "the writer wrote");
        saw_leftovers |= !names(&directory.join(".writing")).is_empty();
        let connector = FileConnector::new(&directory).unwrap();
        assert!(names(&directory.join(".writing")).is_empty(), "cleaned at the next open");
        for id in published.iter().filter(|name| !name.starts_with('.')) {
            let bytes = get(&connector, &Key::latest(id.as_str())).unwrap();
            assert_eq!(bytes.len(), OBJECT);
            assert!(bytes.iter().all(|byte| *byte == bytes[0]), "a whole object");
        }
        connector.close(true).unwrap();
        assert!(!directory.exists(), "nothing is left");
        if saw_leftovers {
            return;
        }
    }
    panic!("no writer was killed in the middle of a put");
}

#[test]
fn role_puts_until_killed() {
    let Some(argument) = process::argument() else { return };
    let size: usize = argument.parse().unwrap();
    let connector = FileConnector::new(std::env::var_os("DIRECTORY").unwrap()).unwrap();
    thread::scope(|scope| {
        for fill in 0..4 {
            let connector = &connector;
            let bytes = vec![fill; size];
            scope.spawn(move || {
                for _ in 0..250 {
                    put(connector, &bytes).unwrap();
                }
            });
        }
    });
}

#[test]
fn the_unfinished_file_of_a_living_writer_stays() {
    let base = tempdir().unwrap();
    let writing = base.path().join(".writing");
    fs::create_dir(&writing).unwrap();
    let unfinished = writing.join("0123");
    let file = File::create(&unfinished).unwrap();
    flock(&file, FlockOperation::LockExclusive).unwrap();
    let connector = FileConnector::new(base.path()).unwrap();
    assert!(unfinished.exists());
    connector.close(true).unwrap();
    assert!(unfinished.exists());
    drop(file);
    FileConnector::new(base.path()).unwrap();
    assert!(!unfinished.exists());
}

#[test]
fn a_put_from_another_process_wakes_a_waiter() {
    let base = tempdir().unwrap();
    let connector = FileConnector::new(base.path()).unwrap();
    let key = connector.new_key().unwrap();
    let mut command = process::command("file::role_fills_a_key", key.id());
    let child = command.env("DIRECTORY", base.path()).spawn().unwrap();
    let start = Instant::now();
    assert!(connector.wait(&key, Some(start + Duration::from_secs(30))).unwrap());
    assert_eq!(&get(&connector, &key).unwrap()[..], b"from afar");
    process::finish(child);
}

#[test]
fn role_fills_a_key() {
    let Some(id) = process::argument() else { return };
    let connector = FileConnector::new(std::env::var_os("DIRECTORY").unwrap()).unwrap();
    thread::sleep(Duration::from_millis(100));
    fill(&connector, &Key::latest(id), b"from afar").unwrap();
}

#[test]
fn more_may_wait_than_the_system_has_watches_for() {
    const WAITERS: usize = 200; // the usual limit is 128 a user
    let base = tempdir().unwrap();
    let connector = FileConnector::new(base.path()).unwrap();
    let key = connector.new_key().unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    let wait = || connector.wait(&key, Some(deadline)).unwrap();
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..WAITERS).map(|_| scope.spawn(wait)).collect();
        thread::sleep(Duration::from_millis(100));
        fill(&connector, &key, b"x").unwrap();
        for waiter in waiting {
            assert!(waiter.join().unwrap());
        }
    });
}

#[test]
fn processes_that_fill_one_key_never_share_a_generation() {
    const PROCESSES: usize = 4;
    let base = tempdir().unwrap();
    let connector = FileConnector::new(base.path()).unwrap();
    let key = connector.new_key().unwrap();
    let children: Vec<_> = (0..PROCESSES)
        .map(|_| {
            let mut command = process::command("file::role_fills_and_evicts", key.id());
            command.env("DIRECTORY", base.path()).spawn().unwrap()
        })
        .collect();
    let lines = children.into_iter().flat_map(process::finish);
    let generations: Vec<u64> =
        lines.filter_map(|line| line.strip_prefix("generation ")?.parse().ok()).collect();
    assert_eq!(generations.len(), PROCESSES * 200);
    assert_eq!(generations.iter().collect::<HashSet<_>>().len(), generations.len());
    assert!(names(&base.path().join(".writing")).is_empty());
}

#[test]
#[expect(clippy::print_stdout, reason = "how a role answers")]
fn role_fills_and_evicts() {
    let Some(id) = process::argument() else { return };
    let connector = FileConnector::new(std::env::var_os("DIRECTORY").unwrap()).unwrap();
    let latest = Key::latest(id);
    println!();
    for round in 0..200_u32 {
        let bytes = round.to_le_bytes().repeat(if round % 20 == 0 { 100_000 } else { 10 });
        let filled = fill(&connector, &latest, &bytes).unwrap();
        println!("generation {}", filled.generation());
        if let Some(found) = get(&connector, &filled) {
            assert_eq!(&found[..], bytes, "one generation, one object");
        }
        if round % 3 == 0 {
            connector.evict(&filled).unwrap();
            assert!(!connector.exists(&filled).unwrap());
        }
    }
}

//! Shared memory: what recycling, pins, sessions and allocations promise.
#![expect(unsafe_code, reason = "forks, as the programs do that pins are for")]

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use proxystore::connectors::shm::{ShmConnector, sweep};
use proxystore::connectors::{Access, Connector, ConnectorConfig, GetOptions, PutOptions, Value};
use proxystore::key::unique_id;
use proxystore::payload::Parts;
use proxystore::{Buffer, ErrorKind, Key};
use tempfile::TempDir;

const MIB: usize = 1 << 20;

/// The directory of a session below the default root.
pub(crate) fn directory(config: &ConnectorConfig) -> PathBuf {
    session_below(Path::new("/dev/shm"), config.url.strip_prefix("shm://").expect("shm"))
}

fn session_below(root: &Path, name: &str) -> PathBuf {
    root.join(format!("proxystore-{}", rustix::process::geteuid().as_raw())).join(name)
}

fn own_root() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

fn url(root: &Path) -> String {
    format!("shm://demo?root={}", root.display())
}

fn open(root: &Path) -> ShmConnector {
    ShmConnector::open(&ConnectorConfig::new(url(root))).unwrap()
}

fn segments(root: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(session_below(root, "demo")).unwrap();
    let paths = files.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("s-")).collect()
}

fn put(connector: &impl Connector, bytes: &[u8]) -> Key {
    connector.put(&bytes.into(), &PutOptions::default()).unwrap()
}

fn get(connector: &impl Connector, key: &Key, access: Access) -> Option<Buffer> {
    connector.get(key, &GetOptions { access, ..GetOptions::default() }).unwrap()
}

/// Minor page faults of this thread so far.
fn faults() -> u64 {
    let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(7).unwrap().parse().unwrap()
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}

// Other processes: this binary again, with a role.

fn spawn(role: &str, root: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "shm::other_process", "--ignored", "--nocapture"])
        .env("SHM_ROLE", role)
        .env("SHM_ROOT", root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "the other process of the tests below"]
fn other_process() {
    let Ok(role) = std::env::var("SHM_ROLE") else { return };
    let connector = open(Path::new(&std::env::var("SHM_ROOT").unwrap()));
    match role.as_str() {
        "reader" => read_and_verify(&connector),
        "writer" => put_for_ever(&connector),
        role => panic!("unknown role {role}"),
    }
}

fn pattern(number: u64, len: usize) -> Vec<u8> {
    number.to_le_bytes().repeat(len / 8)
}

fn is_pattern(number: u64, bytes: &[u8]) -> bool {
    bytes.chunks_exact(8).all(|word| word == number.to_le_bytes())
}

fn to_line(key: &Key, number: u64) -> String {
    format!("key {} {} {} {number}\n", key.id(), key.generation(), key.size())
}

fn from_line(line: &str) -> Option<(Key, u64)> {
    let fields: Vec<_> = line.split_once("key ")?.1.split_whitespace().collect();
    let number = |i: usize| fields.get(i)?.parse().ok();
    Some((Key::new(*fields.first()?, number(1)?, number(2)?), number(3)?))
}

/// Holds the last few objects, private and read-only, and looks at all their bytes when they have
/// been evicted for long; forks now and then, and the child does the same.
fn read_and_verify(connector: &ShmConnector) {
    let mut held: VecDeque<(u64, Buffer)> = VecDeque::new();
    let mut children = Vec::new();
    let (mut seen, mut torn) = (0, 0);
    for line in std::io::stdin().lines() {
        let Some((key, number)) = from_line(&line.unwrap()) else { break };
        let access = if number % 2 == 0 { Access::Private } else { Access::ReadOnly };
        let buffer = get(connector, &key, access);
        std::io::stdout().write_all(b"seen\n").unwrap();
        let Some(buffer) = buffer else { continue };
        seen += 1;
        held.push_back((number, buffer));
        if seen % 64 == 8 {
            // SAFETY: the child reads its memory, sleeps and leaves.
            let child = unsafe { libc::fork() };
            if child == 0 {
                std::thread::sleep(std::time::Duration::from_millis(20));
                let whole = held.iter().all(|(number, buffer)| is_pattern(*number, buffer));
                // SAFETY: leaves without running anything of the parent's.
                unsafe { libc::_exit(i32::from(!whole)) };
            }
            children.push(child);
        }
        if held.len() > 30 {
            let (number, buffer) = held.pop_front().unwrap();
            torn += u32::from(!is_pattern(number, &buffer));
        }
    }
    for child in children {
        let mut status = 0;
        // SAFETY: waits for a child made above.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        torn += u32::from(status != 0);
    }
    assert_eq!(torn, 0, "torn reads among {seen}");
    assert!(seen > 1000, "only {seen} objects were seen in time");
}

fn put_for_ever(connector: &ShmConnector) {
    let mut out = std::io::stdout();
    for number in 0_u64.. {
        let len = [1000, 100_000, 3_000_000][usize::try_from(number % 3).unwrap()];
        let key = put(connector, &pattern(number, len));
        // Every fourth is evicted again, so that segments are being recycled too.
        if number % 4 == 3 {
            connector.evict(&key).unwrap();
        } else {
            out.write_all(to_line(&key, number).as_bytes()).unwrap();
        }
    }
}

#[test]
fn no_reader_ever_sees_a_torn_object() {
    let root = own_root();
    let connector = open(root.path());
    let mut readers: Vec<_> = (0..2).map(|_| spawn("reader", root.path())).collect();
    let mut answers: Vec<_> = readers
        .iter_mut()
        .map(|reader| BufReader::new(reader.stdout.take().unwrap()).lines())
        .collect();
    let mut previous = VecDeque::new();
    for number in 0..1500 {
        let key = put(&connector, &pattern(number, 256 * 1024));
        for reader in &mut readers {
            reader.stdin.as_mut().unwrap().write_all(to_line(&key, number).as_bytes()).unwrap();
        }
        previous.push_back(key);
        if previous.len() > 12 {
            // They have it, or else they would hold nothing that could be torn.
            for lines in &mut answers {
                assert!(lines.by_ref().any(|line| line.unwrap().ends_with("seen")));
            }
            connector.evict(&previous.pop_front().unwrap()).unwrap();
        }
    }
    for (mut reader, lines) in readers.into_iter().zip(answers) {
        drop(reader.stdin.take());
        lines.for_each(drop);
        assert!(reader.wait().unwrap().success(), "a reader saw a torn object, or none");
    }
    assert!(segments(root.path()).len() < 300, "segments are recycled");
}

#[test]
fn a_killed_worker_leaves_its_results_and_nothing_else() {
    let root = own_root();
    let connector = open(root.path());
    let mut worker = spawn("writer", root.path());
    let mut lines = BufReader::new(worker.stdout.take().unwrap()).lines();
    let mut keys = Vec::new();
    while keys.len() < 100 {
        keys.extend(from_line(&lines.next().unwrap().unwrap()));
    }
    worker.kill().unwrap();
    worker.wait().unwrap();
    keys.extend(lines.map_while(Result::ok).filter_map(|line| from_line(&line)));
    for (key, number) in &keys {
        let bytes = get(&connector, key, Access::Private).expect("its results live on");
        assert!(is_pattern(*number, &bytes) && bytes.len() as u64 == key.size());
    }
    let next = open(root.path());
    for path in segments(root.path()) {
        assert_eq!(fs::read(&path).unwrap()[16] & 3, 1, "only whole objects are left: {path:?}");
    }
    for (key, _) in &keys {
        next.evict(key).unwrap();
    }
    assert!(segments(root.path()).len() <= 1, "at most one was put and not yet announced");
    next.close(false).unwrap();
    assert_eq!(sweep(Some(root.path())).unwrap().held, ["demo"]);
    connector.close(false).unwrap(); // the last to leave removes the session
    assert_eq!(fs::read_dir(session_below(root.path(), "")).unwrap().count(), 0);
}

#[test]
fn a_persistent_session_is_not_swept() {
    let root = own_root();
    let mut config = ConnectorConfig::new(url(root.path()));
    config.options.insert("persist".into(), Value::Bool(true));
    let key = put(&ShmConnector::open(&config).unwrap(), &vec![7; 100_000]);
    assert_eq!(sweep(Some(root.path())).unwrap().persistent, ["demo"]);
    let bytes = get(&open(root.path()), &key, Access::Private).expect("it is still there");
    assert_eq!(sum(&bytes), 700_000);
}

#[test]
fn a_full_file_system_is_an_error_that_says_what_to_do() {
    let root = own_root();
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"])
        .arg(root.path())
        .stderr(Stdio::null())
        .status();
    if !mount.is_ok_and(|status| status.success()) {
        return; // mounting takes privileges; the server that runs all tests has them
    }
    let connector = open(root.path());
    let used = || {
        let stat = rustix::fs::statvfs(root.path()).unwrap();
        stat.f_blocks - stat.f_bfree
    };
    let block = vec![1_u8; 10 * MIB];
    let keys: Vec<_> = (0..6).map(|_| put(&connector, &block)).collect();
    let before = used();
    for len in [10 * MIB, 60 * MIB] {
        let error = connector.put(&Parts::from(&vec![2; len][..]), &PutOptions::default());
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full);
        let text = error.to_string();
        for word in [&len.to_string(), "used=", "shared memory=67108864", "--shm-size"] {
            assert!(text.contains(word), "{word} in {text}");
        }
        assert_eq!(connector.allocate(len).unwrap_err().kind(), ErrorKind::Full);
        assert_eq!(used(), before, "nothing is left behind");
    }
    for key in &keys {
        connector.evict(key).unwrap();
    }
    let large = put(&connector, &vec![3; 50 * MIB]);
    assert_eq!(get(&connector, &large, Access::ReadOnly).unwrap().len(), 50 * MIB);
    connector.close(true).unwrap();
    Command::new("umount").arg("-l").arg(root.path()).status().unwrap();
}

#[test]
fn a_steady_state_uses_the_same_pages_and_faults_none() {
    let root = own_root();
    let (connector, consumer) = (open(root.path()), open(root.path()));
    let bytes = vec![5_u8; 4 * MIB];
    let round = |access| {
        let key = put(&connector, &bytes);
        let seen = get(&consumer, &key, access).unwrap();
        assert_eq!(sum(&seen), 5 * bytes.len() as u64);
        consumer.evict(&key).unwrap(); // by another owner
    };
    (0..4).for_each(|_| round(Access::ReadOnly));
    let files = segments(root.path());
    let before = faults();
    (0..20).for_each(|_| round(Access::ReadOnly));
    let faulted = faults() - before;
    assert!(faulted < 1000, "{faulted} faults, where fresh pages would take 20480");
    assert_eq!(segments(root.path()), files, "the same files");
    assert!(files.len() <= 2, "{files:?}");
}

#[test]
fn the_pool_is_bounded_whoever_evicts() {
    let root = own_root();
    let mut config = ConnectorConfig::new(url(root.path()));
    config.options.insert("pool_bytes".into(), Value::Int(3 << 20));
    let (connector, consumer) = (ShmConnector::open(&config).unwrap(), open(root.path()));
    for evictor in [&connector, &consumer] {
        let keys: Vec<_> = (0..8).map(|_| put(&connector, &vec![1; 900_000])).collect();
        for key in &keys {
            evictor.evict(key).unwrap();
        }
        assert!(segments(root.path()).len() <= 3);
    }
}

#[test]
fn an_allocation_is_put_without_a_copy_and_never_changes_again() {
    let root = own_root();
    let connector = open(root.path());
    let head = [9_u8; 4096];
    let store = |buffer: &Buffer| {
        let mut parts = Parts::default();
        parts.push(&head[..100]);
        parts.push(&head[100..]);
        parts.push(buffer);
        connector.put(&parts, &PutOptions::default()).unwrap()
    };
    // Other tests of this process fork, after which memory is copied: try again then.
    for attempt in 0.. {
        let (forks, files) = (proxystore::fork::count(), segments(root.path()).len());
        let mut buffer = connector.allocate(3 * MIB + 5).unwrap();
        buffer.as_mut().unwrap().fill(1);
        assert_eq!(buffer.as_ptr().addr() % 4096, 0);
        let key = store(&buffer);
        let in_place = segments(root.path()).len() <= files.max(1);
        buffer.as_mut().unwrap().fill(2);
        let stored = get(&connector, &key, Access::Private).unwrap();
        assert_eq!(stored[..4096], head);
        assert!(stored[4096..].iter().all(|byte| *byte == 1), "a stored object never changes");
        assert_eq!(stored.len(), 4096 + 3 * MIB + 5);
        let again = store(&buffer);
        let copy = get(&connector, &again, Access::ReadOnly).unwrap();
        assert!(copy[4096..].iter().all(|byte| *byte == 2), "a second put copies");
        connector.evict(&key).unwrap();
        connector.evict(&again).unwrap();
        // The buffer pins its segment: what is put now must not show through.
        let other = put(&connector, &vec![3; 3 * MIB]);
        assert!(buffer.iter().all(|byte| *byte == 2));
        connector.evict(&other).unwrap();
        if in_place {
            break;
        }
        assert!(proxystore::fork::count() != forks && attempt < 20, "it was copied");
    }
}

#[test]
fn a_forked_child_has_a_pool_of_its_own() {
    let root = own_root();
    let connector = open(root.path());
    let first = put(&connector, &pattern(1, MIB));
    connector.evict(&put(&connector, &pattern(2, MIB))).unwrap(); // free in the parent's pool
    // SAFETY: the child uses the connector, which is made for that, and leaves.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let theirs = put(&connector, &pattern(3, MIB));
        let good = get(&connector, &theirs, Access::Private).is_some_and(|b| is_pattern(3, &b))
            && get(&connector, &first, Access::Private).is_some_and(|b| is_pattern(1, &b))
            && connector.evict(&first).is_ok();
        // SAFETY: leaves without running anything of the parent's.
        unsafe { libc::_exit(i32::from(!good)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0);
    assert!(!connector.exists(&first).unwrap());
    let keys: Vec<_> = (0..4).map(|number| put(&connector, &pattern(number, MIB))).collect();
    for (key, number) in keys.iter().zip(0..) {
        assert!(is_pattern(number, &get(&connector, key, Access::ReadOnly).unwrap()));
    }
    assert_eq!(segments(root.path()).len(), 5, "two were recycled, and the child's is its own");
}

#[test]
fn sessions_have_names_of_their_own() {
    let name = unique_id().unwrap();
    let connector = ShmConnector::new(&name).unwrap();
    let directory = session_below(Path::new("/dev/shm"), &name);
    assert!(directory.exists());
    connector.close(true).unwrap();
}

//! Futures, owners and leases at once in many threads, and in processes that are killed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use proxystore::patterns::{Future, FutureOptions, Lease, OwnedProxy};
use proxystore::{ErrorKind, Key, Proxy, Reference, Store};

use crate::process;

const PLENTY: Duration = Duration::from_mins(1);
const WORKERS: u8 = 8;
const ROUNDS: u64 = 30;

fn travel<T: serde::Serialize, R: serde::de::DeserializeOwned>(value: &T) -> R {
    rmp_serde::from_slice(&rmp_serde::to_vec(value).unwrap()).unwrap()
}

#[track_caller]
fn await_that(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PLENTY, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A producer and a consumer that may begin in any order.
fn futures(store: &Store, round: u64) {
    let lease = round.is_multiple_of(3).then_some(PLENTY);
    let evict = round.is_multiple_of(2);
    let future: Future<Vec<u64>> =
        store.future_with(&FutureOptions { evict, timeout: Some(PLENTY), lease }).unwrap();
    let proxy: Proxy<Vec<u64>> = travel(&future.proxy());
    let key = proxy.reference().unwrap().key;
    let producer: Future<Vec<u64>> = travel(&future);
    thread::scope(|scope| {
        let consumer = scope.spawn(move || proxy.resolve().map(|result| result[0]));
        match round % 5 {
            0 => producer.set_error(&std::fmt::Error).unwrap(),
            1 => assert!(producer.cancel().unwrap()),
            _ => producer.set_result(&vec![round; 100]).unwrap(),
        }
        let result = consumer.join().unwrap().map_err(|error| error.kind());
        assert_eq!(
            result,
            match round % 5 {
                0 => Err(ErrorKind::Failed),
                1 => Err(ErrorKind::Cancelled),
                _ => Ok(round),
            }
        );
    });
    store.evict(&key).unwrap();
}

/// Lent objects outlive their owner; updated ones are new everywhere.
fn owners(store: &Store, round: u64) {
    let ttl = round.is_multiple_of(2).then_some(PLENTY);
    let mut owned = match ttl {
        Some(ttl) => store.leased_proxy(vec![round], ttl).unwrap(),
        None => store.owned_proxy(vec![round]).unwrap(),
    };
    let mut exclusive = owned.borrow_mut().unwrap();
    exclusive.push(1);
    exclusive.update().unwrap();
    let copy = owned.try_clone().unwrap();
    let keys = [owned.key().clone(), copy.key().clone()];
    let lent = [owned.lend(), owned.lend(), owned.lend()];
    let elsewhere: Proxy<Vec<u64>> = travel(&lent[0]);
    thread::scope(|scope| {
        for one in lent {
            scope.spawn(move || assert_eq!(**one, [round, 1]));
        }
        assert_eq!(*elsewhere, [round, 1]);
        drop(owned);
    });
    let adopted = OwnedProxy::<Vec<u64>>::adopt(&copy.into_reference().unwrap(), ttl).unwrap();
    assert_eq!(*adopted, [round, 1]);
    drop(adopted);
    for key in keys {
        assert!(!store.exists(&key).unwrap());
    }
}

/// Leases that are renewed, grow and end while others begin.
fn leases(store: &Store, round: u64) {
    let keys: Vec<Key> = (0..3).map(|_| store.put(&round).unwrap()).collect();
    let lease = Lease::new(store, [keys[0].clone()], Duration::from_millis(15)).unwrap();
    for key in &keys[1..] {
        lease.add(key.clone()).unwrap();
    }
    if round.is_multiple_of(10) {
        thread::sleep(lease.ttl() * 2);
    }
    drop(lease);
    await_that("objects outlive their lease", || {
        !keys.iter().any(|key| store.connector().exists(key).unwrap())
    });
    for key in keys {
        store.evict(&key).unwrap(); // what expired may lie about until somebody sweeps
    }
}

/// How many files below a directory hold objects.
fn objects(folder: &Path, is_object: fn(&str) -> bool) -> usize {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let count = |entry: fs::DirEntry| {
        if entry.file_type().unwrap().is_dir() {
            return objects(&entry.path(), is_object);
        }
        usize::from(is_object(entry.file_name().to_str().unwrap()))
    };
    entries.map(count).sum()
}

#[test]
fn threads_that_use_all_patterns_at_once_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    let is_file: fn(&str) -> bool = |name| !name.starts_with('.');
    let is_shared: fn(&str) -> bool = |name| name.starts_with("o-");
    for (url, place) in [
        ("memory://hammer".to_owned(), None),
        (format!("file://{}", folder.path().display()), Some((folder.path(), is_file))),
        (format!("shm://hammer?root={}", root.path().display()), Some((root.path(), is_shared))),
    ] {
        let store = Store::open(&url).unwrap();
        if let Some((folder, is_object)) = place {
            let key = store.put("counted").unwrap();
            assert_eq!(objects(folder, is_object), 1);
            store.evict(&key).unwrap();
        }
        let barrier = Barrier::new(WORKERS.into());
        thread::scope(|scope| {
            for worker in 0..u64::from(WORKERS) {
                let (store, barrier) = (&store, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    for round in worker..worker + ROUNDS {
                        futures(store, round);
                        owners(store, round);
                        leases(store, round);
                    }
                });
            }
        });
        if let Some((folder, is_object)) = place {
            assert_eq!(objects(folder, is_object), 0);
        }
        store.close(true).unwrap();
    }
}

#[test]
fn the_death_of_a_process_ends_its_futures_and_frees_its_objects() {
    let folder = tempfile::tempdir().unwrap();
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    for url in [
        format!("file://{}", folder.path().display()),
        format!("shm://crash?root={}", root.path().display()),
    ] {
        let store = Store::open(&url).unwrap();
        let mut command = process::command("hammer::role_holds_and_waits", &url);
        let mut child = command.stderr(Stdio::inherit()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let references: Vec<Reference> = lines
            .filter_map(|line| {
                let (_, listed) = line.split_once("held [")?;
                let listed = listed.trim_end_matches(']').split(", ");
                let bytes: Vec<u8> = listed.map(|byte| byte.parse().unwrap()).collect();
                Some(Reference::decode(&bytes).unwrap())
            })
            .take(2)
            .collect();
        let [future, owned] = references.try_into().unwrap();
        assert!(store.exists(&owned.key).unwrap());
        let proxies: Vec<Proxy<String>> =
            (0..3).map(|_| Proxy::from_reference(future.clone())).collect();
        let consumers: Vec<_> = proxies
            .into_iter()
            .map(|proxy| thread::spawn(move || proxy.resolve().unwrap_err().kind()))
            .collect();
        child.kill().unwrap();
        child.wait().unwrap();
        for consumer in consumers {
            assert_eq!(consumer.join().unwrap(), ErrorKind::Abandoned);
        }
        await_that("the object of a killed owner stays", || !store.exists(&owned.key).unwrap());
        store.close(true).unwrap();
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "how a role answers")]
fn role_holds_and_waits() {
    let Some(url) = process::argument() else { return };
    let store = Store::open(&url).unwrap();
    let ttl = Duration::from_millis(300);
    let future: Future<String> =
        store.future_with(&FutureOptions { lease: Some(ttl), ..FutureOptions::default() }).unwrap();
    let mut owned = store.leased_proxy("mine".to_owned(), ttl).unwrap();
    let exclusive = owned.borrow_mut().unwrap();
    exclusive.update().unwrap(); // which keeps the lease
    println!();
    for reference in [future.proxy().reference().unwrap(), owned.borrow().reference().unwrap()] {
        println!("held {:?}", reference.encode().unwrap());
    }
    thread::sleep(PLENTY * 10);
}

#[test]
fn lengths_of_leases_that_make_no_sense_are_harmless() {
    let store = Store::open("memory://hammer-lengths").unwrap();
    let key = store.put("x").unwrap();
    let error = Lease::new(&store, [key.clone()], Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    for lease in [Duration::MAX, Duration::from_nanos(1)] {
        let options = FutureOptions {
            lease: Some(lease),
            timeout: Some(Duration::from_millis(20)),
            ..FutureOptions::default()
        };
        let future: Future<String> = store.future_with(&options).unwrap();
        let kind = future.result(None).unwrap_err().kind();
        assert!(matches!(kind, ErrorKind::Timeout | ErrorKind::Abandoned));
        drop(future);
    }
    store.close(true).unwrap();
}

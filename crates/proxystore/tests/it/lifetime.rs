//! Lifetimes end when they should, and leave nothing behind however that comes about.
#![expect(unsafe_code, reason = "forks, as the programs do that have lifetimes")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use proxystore::patterns::{ContextLifetime, LeaseLifetime, Lifetime, process_lifetime};
use proxystore::{ErrorKind, Key, Store};

use crate::process;

const PATIENCE: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_hours(1);

fn store(name: &str) -> Store {
    Store::open(&format!("memory://lifetime-{name}")).unwrap()
}

fn file_store(directory: &Path) -> Store {
    Store::open(&format!("file://{}", directory.display())).unwrap()
}

/// Files of objects in a directory.
fn objects(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries.filter(|entry| !entry.file_name().to_str().unwrap().starts_with('.')).count()
}

fn wait_until(mut is_so: impl FnMut() -> bool, what: &str) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_context_evicts_the_objects_of_all_its_stores() {
    let (one, other) = (store("one"), store("other"));
    let lifetime = ContextLifetime::new();
    let first = one.put_in(&lifetime, "first").unwrap();
    let second = other.proxy_in(&lifetime, "second".to_owned()).unwrap();
    let second = second.reference().unwrap();
    let third = one.put("third").unwrap();
    lifetime.add_reference(&one.proxy_from_key::<String>(&third).reference().unwrap()).unwrap();
    assert_eq!(one.get::<String>(&first).unwrap().as_deref(), Some("first"));
    assert!(!lifetime.is_done() && lifetime.left().is_none());
    lifetime.close().unwrap();
    assert!(lifetime.is_done());
    for (store, key) in [(&one, &first), (&other, &second.key), (&one, &third)] {
        assert!(!store.exists(key).unwrap(), "evicted, from the cache too");
    }
    lifetime.close().unwrap();

    let dropped = ContextLifetime::default();
    let key = one.put_in(&dropped, "x").unwrap();
    drop(dropped);
    assert!(!one.exists(&key).unwrap());
}

#[test]
fn an_ended_lifetime_takes_no_more_objects() {
    let base = tempfile::tempdir().unwrap();
    let store = file_store(base.path());
    let kept = store.put("kept").unwrap();
    let (context, lease) = (ContextLifetime::new(), LeaseLifetime::new(LONG));
    let over = LeaseLifetime::new(Duration::ZERO);
    let lifetimes: [&dyn Lifetime; 3] = [&context, &lease, &over];
    for lifetime in lifetimes {
        lifetime.close().unwrap();
        assert!(lifetime.is_done());
        let error = store.put_in(lifetime, "late").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        assert!(error.hint().is_some());
        let error = store.proxy_in(lifetime, "late".to_owned()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        let error = lifetime.add_key(&store, kept.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    }
    assert_eq!(lease.extend(LONG).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(objects(base.path()), 1);
    store.close(true).unwrap();
}

#[test]
fn closing_tries_all_objects_and_tells_the_first_error() {
    let (gone, there) = (store("gone"), store("there"));
    let lifetime = ContextLifetime::new();
    gone.put_in(&lifetime, "x").unwrap();
    let key = there.put_in(&lifetime, "x").unwrap();
    gone.close(true).unwrap();
    assert_eq!(lifetime.close().unwrap_err().kind(), ErrorKind::Closed);
    assert!(!there.exists(&key).unwrap());
    lifetime.close().unwrap();
}

#[test]
fn a_lease_ends_in_time_in_the_channel_and_in_the_cache() {
    let base = tempfile::tempdir().unwrap();
    for store in [store("lease"), file_store(base.path())] {
        let lease = LeaseLifetime::new(SHORT);
        let mut keys = vec![store.put_in(&lease, "x").unwrap(), store.put("added").unwrap()];
        lease.add_key(&store, keys[1].clone()).unwrap();
        keys.push(store.proxy_in(&lease, 7_i64).unwrap().reference().unwrap().key);
        let _ = store.get::<String>(&keys[0]); // into the cache, unless this took long
        for key in &keys {
            wait_until(|| !store.exists(key).unwrap(), "the lease does not end");
        }
        assert!(lease.is_done());
        assert_eq!(lease.left(), Some(Duration::ZERO));
    }
    wait_until(|| objects(base.path()) == 0, "evicted, not just expired");
}

#[test]
fn a_lease_may_end_later_or_sooner() {
    let store = store("extended");
    let lease = LeaseLifetime::new(LONG);
    let key = store.put_in(&lease, "x").unwrap();
    lease.extend(LONG).unwrap();
    assert!(lease.left().unwrap() > LONG);
    lease.end_in(LONG).unwrap();
    assert!(lease.left().unwrap() <= LONG && store.exists(&key).unwrap());
    lease.end_in(SHORT).unwrap();
    wait_until(|| lease.is_done(), "the lease does not end");
    wait_until(|| !store.exists(&key).unwrap(), "the lease does not evict");

    // The first end passes while it is extended again and again.
    let lease = LeaseLifetime::new(PATIENCE);
    let key = store.put_in(&lease, "x").unwrap();
    for _ in 0..20 {
        lease.end_in(PATIENCE).unwrap();
        thread::sleep(SHORT / 10);
    }
    assert!(store.exists(&key).unwrap());
    lease.end_in(Duration::ZERO).unwrap();
    assert!(lease.is_done() && !store.exists(&key).unwrap());

    let endless = LeaseLifetime::new(Duration::MAX);
    let key = store.put_in(&endless, "x").unwrap();
    endless.extend(Duration::MAX).unwrap();
    assert!(store.exists(&key).unwrap());
    drop(endless);
    assert!(!store.exists(&key).unwrap());
}

#[test]
fn threads_that_add_while_it_ends_leak_nothing() {
    let base = tempfile::tempdir().unwrap();
    let store = file_store(base.path());
    let (context, lease) = (ContextLifetime::new(), LeaseLifetime::new(SHORT));
    let add = |lifetime: &dyn Lifetime| {
        loop {
            match store.put_in(lifetime, "x") {
                Ok(_) => {}
                Err(error) => return assert_eq!(error.kind(), ErrorKind::Closed, "{error}"),
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| add(&context));
            scope.spawn(|| add(&lease));
        }
        thread::sleep(SHORT);
        context.close().unwrap();
    });
    wait_until(|| objects(base.path()) == 0, "an object is left");
    store.close(true).unwrap();
}

#[test]
fn a_forked_child_frees_nothing_of_its_parent() {
    let store = store("forked");
    let (context, lease) = (ContextLifetime::new(), LeaseLifetime::new(LONG));
    let base = tempfile::tempdir().unwrap();
    let files = file_store(base.path());
    let keys: [Key; 2] = [&context as &dyn Lifetime, &lease].map(|lifetime| {
        store.put_in(lifetime, "x").unwrap();
        files.put_in(lifetime, "x").unwrap()
    });
    // SAFETY: the child ends its copies of the lifetimes and leaves without running anything else.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let ended = context.close().and_then(|()| lease.close());
        // SAFETY: ends the child.
        unsafe { libc::_exit(i32::from(ended.is_err())) };
    }
    let mut status = -1;
    // SAFETY: a child of this process.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
    assert!(keys.iter().all(|key| files.exists(key).unwrap()));
    assert!(!context.is_done() && !lease.is_done());
    context.close().unwrap();
    lease.close().unwrap();
    assert!(!keys.iter().any(|key| files.exists(key).unwrap()));
}

#[test]
fn the_process_lifetime_evicts_at_exit() {
    let base = tempfile::tempdir().unwrap();
    let mut command = process::command("lifetime::role_stores_and_ends", "");
    let child = command.env("DIRECTORY", base.path()).spawn().unwrap();
    let lines = process::finish(child);
    assert!(lines.iter().any(|line| line == "stored 2"), "{lines:?}");
    assert_eq!(objects(base.path()), 1, "the other object is left");
}

#[test]
#[expect(clippy::print_stdout, reason = "how a role answers")]
fn role_stores_and_ends() {
    if process::argument().is_none() {
        return;
    }
    let directory = std::env::var_os("DIRECTORY").unwrap();
    let store = file_store(Path::new(&directory));
    store.put_in(process_lifetime(), "until the end").unwrap();
    store.put("for good").unwrap();
    println!("\nstored {}", objects(Path::new(&directory)));
}

#[test]
fn a_lease_of_a_killed_process_ends_in_its_channel() {
    let base = tempfile::tempdir().unwrap();
    let root = tempfile::tempdir_in("/dev/shm").unwrap();
    for url in [
        format!("file://{}", base.path().display()),
        format!("shm://demo?root={}", root.path().display()),
    ] {
        let store = Store::open(&url).unwrap();
        let mut child = process::command("lifetime::role_leases_and_waits", &url).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let keys: Vec<Key> = lines
            .filter_map(|line| {
                let (id, generation) = line.strip_prefix("key ")?.split_once(' ')?;
                Some(Key::new(id, generation.parse().unwrap(), 0))
            })
            .take(2)
            .collect();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(keys.len(), 2);
        for key in &keys {
            wait_until(|| !store.exists(key).unwrap(), "the object of a killed process stays");
        }
        store.close(true).unwrap();
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "how a role answers")]
fn role_leases_and_waits() {
    let Some(url) = process::argument() else { return };
    let store = Store::open(&url).unwrap();
    let lease = LeaseLifetime::new(LONG);
    let keys = [store.put_in(&lease, "x"), store.put_in(&lease, &vec![1_i64; 50_000])];
    lease.end_in(SHORT * 10).unwrap();
    println!();
    for key in keys.map(Result::unwrap) {
        println!("key {} {}", key.id(), key.generation());
    }
    thread::sleep(PATIENCE * 10);
}

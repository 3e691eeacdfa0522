//! What is special about the memory channel.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proxystore::connectors::memory::MemoryConnector;
use proxystore::connectors::{
    Access, Connector, ConnectorConfig, GetOptions, PutOptions, Value, open,
};
use proxystore::error::ErrorKind;
use proxystore::key::unique_id;
use proxystore::payload::Parts;

use crate::process;

fn channel() -> MemoryConnector {
    MemoryConnector::new(&unique_id().unwrap()).unwrap()
}

fn shared() -> GetOptions {
    GetOptions { access: Access::ReadOnly, ..GetOptions::default() }
}

#[test]
fn readers_share_the_stored_memory() {
    let connector = channel();
    let key = connector.put(&Parts::from(&vec![7; 1 << 20][..]), &PutOptions::default()).unwrap();
    let first = connector.get(&key, &shared()).unwrap().unwrap();
    let second = connector.get(&key, &shared()).unwrap().unwrap();
    let private = connector.get(&key, &GetOptions::default()).unwrap().unwrap();
    assert_eq!(first.as_ptr(), second.as_ptr());
    assert_ne!(first.as_ptr(), private.as_ptr());
    let part = GetOptions { range: Some(100..200), ..shared() };
    let part = connector.get(&key, &part).unwrap().unwrap();
    assert_eq!(part.as_ptr(), first[100..].as_ptr().cast_mut());
}

#[test]
fn a_channel_outlives_its_connectors() {
    let connector = channel();
    let config = connector.config();
    let key = connector.put(&Parts::from(&b"kept"[..]), &PutOptions::default()).unwrap();
    connector.close(false).unwrap();
    drop(connector);
    let again = open(&config).unwrap();
    assert_eq!(&again.get(&key, &shared()).unwrap().unwrap()[..], b"kept");
    again.close(true).unwrap();
    assert!(!open(&config).unwrap().exists(&key).unwrap());
}

#[test]
fn wrong_configurations_are_refused_by_name() {
    for url in ["memory:", "memory://", "memory://a/b", "memory://.x", "file:///tmp"] {
        let error = MemoryConnector::open(&ConnectorConfig::new(url)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
    }
    let options = BTreeMap::from([("speed".to_owned(), Value::Int(9))]);
    let config = ConnectorConfig { options, ..ConnectorConfig::new("memory://x") };
    let error = MemoryConnector::open(&config).unwrap_err();
    assert!(error.to_string().contains("\"speed\""), "{error}");
}

#[test]
fn a_forked_child_finds_the_objects_and_no_lock_held() {
    process::finish(process::command("memory::role_forks_among_busy_threads", "").spawn().unwrap());
}

#[test]
fn role_forks_among_busy_threads() {
    if process::argument().is_none() {
        return;
    }
    let connector = channel();
    let old = connector.put(&Parts::from(&vec![1; 200_000][..]), &PutOptions::default()).unwrap();
    let absent = connector.new_key().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for seed in 0..8_u8 {
            let (connector, done, absent) = (&connector, &done, &absent);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let bytes = [seed; 1000];
                    let put = connector.put(&Parts::from(&bytes[..]), &PutOptions::default());
                    let key = put.unwrap();
                    assert!(connector.exists(&key).unwrap());
                    connector.evict(&key).unwrap();
                    assert!(!connector.wait(absent, Some(std::time::Instant::now())).unwrap());
                }
            });
        }
        let failed = (0..150).find(|_| {
            let status = in_forked_child(|| {
                let found = connector.get(&old, &shared()).unwrap().unwrap();
                assert!(found.iter().all(|byte| *byte == 1));
                for _ in 0..50 {
                    let parts = Parts::from(&b"new"[..]);
                    let key = connector.put(&parts, &PutOptions::default()).unwrap();
                    assert!(connector.exists(&key).unwrap());
                }
                connector.close(true).unwrap();
            });
            status != 0
        });
        done.store(true, Ordering::Relaxed);
        assert_eq!(failed, None, "the child that failed");
    });
    assert!(connector.exists(&old).unwrap(), "what a child clears is its own");
}

/// Runs `body` in a forked child, which is killed after 20 seconds; returns its wait status.
#[expect(unsafe_code, reason = "forks")]
pub(crate) fn in_forked_child(body: impl FnOnce()) -> i32 {
    // SAFETY: the child runs `body` on the one thread it has and leaves without unwinding.
    unsafe {
        let child = libc::fork();
        assert!(child >= 0, "{}", std::io::Error::last_os_error());
        if child == 0 {
            libc::alarm(20);
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            libc::_exit(i32::from(outcome.is_err()));
        }
        let mut status = -1;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        status
    }
}

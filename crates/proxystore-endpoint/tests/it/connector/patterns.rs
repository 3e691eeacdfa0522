//! What is built on stores, over an endpoint: futures, ownership, leases, views, forks.
#![expect(unsafe_code, reason = "forks, as programs do that compute in several processes")]

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use proxystore::codec::Array;
use proxystore::patterns::Future;
use proxystore::testkit::Counting;
use proxystore::{Connector, Proxy, Store};

use super::site::{Over, Site};
use super::{get, put};

fn store(site: &Site, name: &str) -> Store {
    Store::builder(name, Arc::new(site.open())).build()
}

#[test]
fn futures_are_awaited_by_who_came_first() {
    let site = Site::start(Over::Unix, "");
    let store = store(&site, "endpoint-futures");
    let future: Future<String> = store.future().unwrap();
    let consumers: Vec<_> = (0..3)
        .map(|_| {
            let text = future.proxy().reference().unwrap();
            thread::spawn(move || Proxy::<String>::from_reference(text).resolve().unwrap().clone())
        })
        .collect();
    assert!(!future.is_done().unwrap());
    future.set_result(&"here".to_owned()).unwrap();
    for consumer in consumers {
        assert_eq!(consumer.join().unwrap(), "here");
    }
    store.close(true).unwrap();
}

#[test]
fn owners_and_leases_free_their_objects() {
    let site = Site::start(Over::Unix, "");
    let store = store(&site, "endpoint-owners");
    let mut owned = store.owned_proxy(vec![1_u8]).unwrap();
    let key = owned.key().clone();
    let mut exclusive = owned.borrow_mut().unwrap();
    exclusive.push(2);
    exclusive.update().unwrap();
    let elsewhere: Proxy<Vec<u8>> = Proxy::from_reference(owned.borrow().reference().unwrap());
    assert_eq!(*elsewhere, [1, 2]);
    drop(owned);
    assert!(!store.exists(&key.to_latest()).unwrap());

    let leased = store.leased_proxy("kept".to_owned(), Duration::from_millis(600)).unwrap();
    let key = leased.key().clone();
    thread::sleep(Duration::from_millis(1800));
    assert!(store.exists(&key).unwrap(), "renewed while its owner lives");
    drop(leased);
    assert!(!store.exists(&key).unwrap());
}

#[test]
fn views_read_no_more_than_they_show() {
    // What is in shared memory is mapped whole, which reads nothing either.
    for (over, storage) in [(Over::Unix, "shared_from = 0"), (Over::Tcp, "")] {
        let site = Site::start(over, storage);
        let connector = Counting::new(site.open());
        let counts = connector.counter();
        let store = Store::builder("endpoint-views", Arc::new(connector)).build();
        let array = Array::from_vec(&[1000, 1000], (0..1_000_000_u32).collect()).unwrap();
        let view = store.view(&store.put(&array).unwrap()).unwrap();
        let before = counts().bytes_got;
        let row = view.array::<u32>().unwrap().row(7).unwrap();
        assert_eq!(row[..3], [7000, 7001, 7002]);
        // A chunk of the four megabytes, with its checksum.
        let read = counts().bytes_got - before;
        assert!(read < 2_000_000, "{read}");
        store.close(true).unwrap();
    }
}

#[test]
fn a_forked_child_has_connections_of_its_own() {
    let site = Site::start(Over::Unix, "");
    let connector = site.open();
    let keys = [put(&connector, b"small"), put(&connector, &vec![9; 500_000])];
    let works = |connector: &dyn Connector| {
        keys.iter().all(|key| get(connector, key).is_some_and(|b| b.len() as u64 == key.size()))
            && connector.exists(&put(connector, &vec![1; 300_000])).unwrap()
    };
    assert!(works(&connector));
    // SAFETY: the child uses the connector, which bears a fork, and leaves without running destructors.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: ends a child that hangs.
        unsafe { libc::alarm(60) };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| works(&connector)));
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(!matches!(outcome, Ok(true)))) };
    }
    for _ in 0..20 {
        assert!(works(&connector), "the parent goes on meanwhile");
    }
    let mut status = -1;
    // SAFETY: waits for the child that was just made.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0);
}

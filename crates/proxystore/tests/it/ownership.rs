//! Owners free their objects exactly once, and never under a borrower.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use proxystore::connectors::PutOptions;
use proxystore::connectors::memory::MemoryConnector;
use proxystore::patterns::OwnedProxy;
use proxystore::store::{CacheLimits, registry};
use proxystore::testkit::Counting;
use proxystore::{Connector, ErrorKind, Proxy, Store};

fn store(name: &str) -> Store {
    Store::open(&format!("memory://{name}")).unwrap()
}

#[test]
fn dropping_the_owner_evicts() {
    let store = store("own-drop");
    let owned = store.owned_proxy("mine".to_owned()).unwrap();
    let key = owned.key().clone();
    assert_eq!(owned.len(), 4);
    assert!(store.exists(&key).unwrap());
    drop(owned);
    assert!(!store.exists(&key).unwrap());
}

#[test]
fn what_is_lent_outlives_the_owner() {
    let store = store("own-lend");
    let owned = store.owned_proxy(vec![1_u8, 2, 3]).unwrap();
    let key = owned.key().clone();
    let lent = owned.lend();
    let received: Proxy<Vec<u8>> =
        rmp_serde::from_slice(&rmp_serde::to_vec(&lent).unwrap()).unwrap();
    drop(owned);
    assert!(store.exists(&key).unwrap());
    let task = thread::spawn(move || (received.len(), lent));
    let (len, lent) = task.join().unwrap();
    assert_eq!(len, 3);
    drop(lent);
    assert!(!store.exists(&key).unwrap());
}

#[test]
fn an_update_is_seen_by_later_borrowers_and_refused_while_lent() {
    let store = store("own-update");
    let mut owned = store.owned_proxy(vec![1_u8]).unwrap();
    let lent = owned.lend();
    assert_eq!(owned.borrow_mut().unwrap_err().kind(), ErrorKind::Borrow);
    drop(lent);
    let mut exclusive = owned.borrow_mut().unwrap();
    exclusive.push(2);
    assert_eq!(exclusive.len(), 2);
    exclusive.update().unwrap();
    assert_eq!(*owned, [1, 2]);
    let elsewhere: Proxy<Vec<u8>> = Proxy::from_reference(owned.borrow().reference().unwrap());
    assert_eq!(*elsewhere, [1, 2]);
    let mut discarded = owned.borrow_mut().unwrap();
    discarded.clear();
    drop(discarded);
    assert_eq!(*owned, [1, 2]);
}

#[test]
fn ownership_travels_as_a_reference() {
    let store = store("own-travel");
    let owned = store.owned_proxy("sent".to_owned()).unwrap();
    let key = owned.key().clone();
    let message = rmp_serde::to_vec(&owned.into_reference().unwrap()).unwrap();
    assert!(store.exists(&key).unwrap(), "on the way, nobody frees it");
    let reference = rmp_serde::from_slice(&message).unwrap();
    let arrived: OwnedProxy<String> = OwnedProxy::adopt(&reference, None).unwrap();
    assert_eq!(*arrived, "sent");
    drop(arrived);
    assert!(!store.exists(&key).unwrap());
}

#[test]
fn giving_away_what_is_lent_is_refused() {
    let store = store("own-give");
    let owned = store.owned_proxy("kept".to_owned()).unwrap();
    let key = owned.key().clone();
    let lent = owned.lend();
    assert_eq!(owned.into_reference().unwrap_err().kind(), ErrorKind::Borrow);
    assert!(store.exists(&key).unwrap());
    drop(lent);
    assert!(!store.exists(&key).unwrap());
}

#[test]
fn a_clone_has_an_owner_and_bytes_of_its_own() {
    let store = store("own-clone");
    let owned = store.owned_proxy("twice".to_owned()).unwrap();
    let clone = owned.try_clone().unwrap();
    assert_ne!(owned.key(), clone.key());
    drop(owned);
    assert_eq!(*clone, "twice");
}

#[test]
fn a_leased_object_lives_while_its_owner_does() {
    let store = store("own-lease");
    let ttl = Duration::from_millis(600);
    let owned = store.leased_proxy("kept".to_owned(), ttl).unwrap();
    let key = owned.key().clone();
    thread::sleep(ttl * 3);
    assert!(store.connector().exists(&key).unwrap());
    drop(owned.into_reference().unwrap()); // lost on the way: nobody renews
    thread::sleep(ttl * 3);
    assert!(!store.connector().exists(&key).unwrap());
}

#[test]
fn small_objects_travel_inside_their_references() {
    let connector = Counting::new(MemoryConnector::new("inline").unwrap());
    let counts = connector.counter();
    let connector: Arc<dyn Connector> = Arc::new(connector);
    let store = Store::builder("inline", connector)
        .inline_bytes(1000)
        .cache(CacheLimits { entries: 0, bytes: 0 })
        .build();
    registry::register(&store).unwrap();
    let small = store.proxy("x".repeat(100)).unwrap();
    let message = rmp_serde::to_vec(&small).unwrap();
    let arrived: Proxy<String> = rmp_serde::from_slice(&message).unwrap();
    assert_eq!(arrived.len(), 100);
    assert_eq!((counts().puts, counts().gets), (0, 0));
    let large = store.proxy("x".repeat(2000)).unwrap();
    assert!(rmp_serde::to_vec(&large).unwrap().len() < 250);
    assert_eq!(counts().puts, 1);
    let key = store.connector().new_key().unwrap();
    let options = PutOptions { key: Some(key.clone()), ..PutOptions::default() };
    store.put_with("x", &options).unwrap();
    assert_eq!(store.get::<String>(&key).unwrap().as_deref(), Some("x"));
}

//! Objects that clients and daemon exchange through shared memory, and what other processes see of a connector.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use proxystore::connectors::endpoint::EndpointConnector;
use proxystore::connectors::{Access, Connector, GetOptions};
use proxystore::{Key, Store};

use super::site::{Over, Site};
use super::{get, put};

#[test]
fn large_objects_go_through_shared_memory_and_stay_when_their_writer_leaves() {
    let site = Site::start(Over::Unix, "");
    let (writer, reader) = (site.open(), site.open());
    assert!(writer.capabilities().allocate && writer.capabilities().zero_copy_get);
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    let key = put(&writer, &bytes);
    writer.close(false).unwrap();
    drop(writer);
    let options = GetOptions { access: Access::ReadOnly, ..GetOptions::default() };
    let held = reader.get(&key, &options).unwrap().unwrap();
    assert!(*held == *bytes);
    // The same memory each time: mapped, not copied over the socket.
    let range = GetOptions { range: Some(100_000..2_000_000), ..options };
    assert!(*reader.get(&key, &range).unwrap().unwrap() == bytes[100_000..2_000_000]);
    reader.evict(&key).unwrap();
    assert!(get(&reader, &key).is_none());
    assert!(*held == *bytes, "what was got stays");
}

fn session_of(site: &Site) -> PathBuf {
    let user = format!("/dev/shm/proxystore-{}", rustix::process::geteuid().as_raw());
    let session = format!("endpoint-{}", site.card().endpoint().unwrap().short());
    Path::new(&user).join(session)
}

#[test]
fn what_its_client_never_hands_over_has_an_end() {
    let site = Site::start(Over::Unix, "");
    let connector = site.open();
    let mark = session_of(&site).join("expiring");
    assert!(!mark.exists());
    put(&connector, &vec![1; 1_000_000]);
    assert!(mark.exists(), "who sweeps looks for what a client left that died");
}

#[test]
fn who_has_other_shared_memory_than_the_endpoint_sends_bytes_and_nothing_is_lost() {
    let site = Site::start(Over::Unix, "");
    let before = site.open();
    let holds = |connector: &EndpointConnector, key: &Key, byte: u8| {
        let bytes = get(connector, key).unwrap();
        bytes.len() == 1_000_000 && bytes.iter().all(|b| *b == byte)
    };
    let key = put(&before, &vec![1; 1_000_000]);
    // As when a user logs out and the system tidies up, or for who is in a container.
    fs::remove_dir_all(session_of(&site)).unwrap();
    let after = site.open();
    assert!(holds(&after, &key, 1));
    for _ in 0..2 {
        let key = put(&after, &vec![2; 1_000_000]);
        assert!(holds(&after, &key, 2) && holds(&before, &key, 2));
    }
    before.evict(&key).unwrap();
    assert!(get(&after, &key).is_none());
}

#[test]
fn over_tcp_nothing_is_shared() {
    let site = Site::start(Over::Tcp, "");
    let connector = site.open();
    assert!(!connector.capabilities().allocate);
    let error = connector.allocate(10).unwrap_err();
    assert_eq!(error.kind(), proxystore::ErrorKind::Unsupported);
    let key = put(&connector, &vec![3; 1_000_000]);
    assert_eq!(get(&connector, &key).unwrap().len(), 1_000_000);
}

#[test]
fn memory_of_the_endpoint_is_filled_in_place() {
    let site = Site::start(Over::Unix, "");
    let connector = site.open();
    let mut inside = connector.allocate(1_000_000).unwrap();
    inside.as_mut().unwrap().fill(5);
    let key = put(&connector, &inside);
    assert!(get(&connector, &key).unwrap().iter().all(|byte| *byte == 5));
}

#[test]
fn a_configuration_opens_the_same_store_elsewhere_without_a_token() {
    let site = Site::start(Over::Unix, "");
    let connector = site.open();
    let config = connector.config();
    let names: Vec<_> = config.options.keys().map(String::as_str).collect();
    assert_eq!(names, ["home", "namespace"], "home was given, the token is never told");
    let token = site.directory().token().unwrap().reveal();
    assert!(!format!("{config:?} {connector:?}").contains(&token));
    let by_name = proxystore::connectors::ConnectorConfig { url: "endpoint:site".into(), ..config };
    let other = EndpointConnector::open(&by_name).unwrap();
    assert_eq!(other.config(), connector.config());
    let key = put(&connector, b"x");
    assert!(other.exists(&key).unwrap());
    other.close(true).unwrap();
    assert!(!connector.exists(&key).unwrap(), "the namespace is the same");
}

#[test]
fn stores_work_from_many_threads() {
    let site = Site::start(Over::Unix, "");
    let store = Store::builder("endpoint-threads", Arc::new(site.open())).build();
    thread::scope(|scope| {
        for thread in 0..8_u64 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..50 {
                    let value = vec![thread * 1000 + round; 1 + round as usize * 500];
                    let key = store.put(&value).unwrap();
                    assert_eq!(store.get::<Vec<u64>>(&key).unwrap(), Some(value));
                    store.evict(&key).unwrap();
                }
            });
        }
    });
}

//! Objects in shared memory.

use proxystore::Key;
use proxystore::connectors::shm::{ShmConnector, sweep};
use proxystore::connectors::{Connector, GetOptions, PutOptions};
use proxystore::wire::Shared;

use super::*;

/// Storage with a session of shared memory of its own, and a client of that session.
async fn shared(settings: &config::Storage, directory: &Path) -> (Storage, ShmConnector) {
    let name = format!("test-{}", proxystore::key::unique_id().unwrap());
    let storage = Storage::open(settings, directory, Some(&name)).await.unwrap();
    (storage, ShmConnector::new(&name).unwrap())
}

fn hand_over(client: &ShmConnector, bytes: &Bytes) -> Key {
    client.put(&bytes[..].into(), &PutOptions::default()).unwrap()
}

fn read(client: &ShmConnector, place: &Shared) -> Option<proxystore::Buffer> {
    let key = Key::new(place.id.as_str(), place.generation, place.size);
    client.get(&key, &GetOptions::default()).unwrap()
}

const SHARED: Wanted = Wanted { range: None, shared: true };

#[tokio::test]
async fn what_a_client_put_there_is_the_endpoints() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, client) = shared(&settings(4 * MIB, 64 * MIB), dir.path()).await;
    let bytes = bytes(1, MIB);
    let key = hand_over(&client, &bytes);
    for _ in 0..2 {
        storage.put_shared("a", 5, None, key.clone()).await.unwrap(); // the second time is a retry
    }
    let again = hand_over(&client, &bytes);
    storage.put_shared("a", 5, None, again.clone()).await.unwrap();
    assert!(!client.exists(&again).unwrap(), "one of them is enough");
    let usage = storage.usage();
    assert!((MIB..MIB + 4 * KIB).contains(&usage.memory), "{usage:?}");
    let error = storage.put_shared("b", 5, None, key.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "one has an owner already");
    // Without the rights of a client of this host, the bytes themselves.
    assert_eq!(get(&storage, "a", 5).await.unwrap(), bytes);
    let found = storage.get("a", 0, &SHARED).await.unwrap().unwrap();
    assert!(found.body.is_empty());
    let place = found.shared.unwrap();
    let buffer = read(&client, &place).unwrap();
    storage.evict("a", 0).await.unwrap();
    assert!(read(&client, &place).is_none(), "evicting frees it");
    assert_eq!(buffer[..], bytes[..], "but not under who reads it");
    assert_eq!(storage.usage().memory, 0);
    storage.close().await.unwrap();
    client.close(true).unwrap();
}

#[tokio::test]
async fn what_has_an_end_in_case_nobody_takes_it_over_has_none_after_that() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, client) = shared(&settings(4 * MIB, 0), dir.path()).await;
    let options = PutOptions { ttl: Some(Duration::from_secs(2)), ..PutOptions::default() };
    let [taken, left] = [1, 2].map(|n| client.put(&bytes(n, MIB)[..].into(), &options).unwrap());
    storage.put_shared("a", 1, None, taken.clone()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2100)).await;
    sweep(None).unwrap();
    assert!(client.exists(&taken).unwrap() && !client.exists(&left).unwrap());
    let error = storage.put_shared("b", 1, None, left).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    storage.close().await.unwrap();
    client.close(true).unwrap();
}

#[tokio::test]
async fn what_is_not_there_is_refused_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, client) = shared(&settings(MIB, 0), dir.path()).await;
    let key = hand_over(&client, &bytes(1, 200 * KIB));
    let lying = Key::new(key.id(), key.generation(), 100 * KIB);
    assert!(storage.put_shared("a", 1, None, lying).await.is_err());
    assert!(!client.exists(&key).unwrap(), "it is the endpoint's also when that fails");
    let error = storage.put_shared("a", 1, None, key).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let large = hand_over(&client, &bytes(1, 2 * MIB));
    let error = storage.put_shared("a", 1, None, large.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(!client.exists(&large).unwrap());
    assert_eq!((storage.usage().objects, storage.usage().memory), (0, 0));
    storage.close().await.unwrap();
    client.close(true).unwrap();
}

#[tokio::test]
async fn it_counts_as_memory_and_leaves_it_for_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, client) = shared(&settings(MIB, 64 * MIB), dir.path()).await;
    let mut keys = Vec::new();
    for n in 0..10 {
        let key = hand_over(&client, &bytes(n, 300 * KIB));
        storage.put_shared(&format!("o{n}"), 1, None, key.clone()).await.unwrap();
        keys.push(key);
        assert!(storage.usage().memory <= MIB);
    }
    assert!(!client.exists(&keys[0]).unwrap(), "it is on disk now");
    // Longer than there is room at all.
    let key = hand_over(&client, &bytes(10, 2 * MIB));
    storage.put_shared("o10", 1, None, key.clone()).await.unwrap();
    assert!(!client.exists(&key).unwrap());
    for n in 0..10 {
        assert_eq!(get(&storage, &format!("o{n}"), 0).await.unwrap(), bytes(n, 300 * KIB));
    }
    assert_eq!(get(&storage, "o10", 0).await.unwrap(), bytes(10, 2 * MIB));
    storage.clear("o").await.unwrap();
    assert_eq!((storage.usage().memory, storage.usage().disk), (0, 0));
    storage.close().await.unwrap();
    client.close(true).unwrap();
}

#[tokio::test]
async fn what_came_another_way_is_shared_once_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, client) = shared(&settings(4 * MIB, 0), dir.path()).await;
    put_in_pieces(&storage, "a", &bytes(1, MIB)).await.unwrap();
    put(&storage, "small", 1, &bytes(1, KIB)).await.unwrap();
    let first = storage.get("a", 0, &SHARED).await.unwrap().unwrap().shared.unwrap();
    let again = storage.get("a", 0, &SHARED).await.unwrap().unwrap().shared.unwrap();
    assert_eq!(first, again);
    assert_eq!(read(&client, &first).unwrap()[..], bytes(1, MIB)[..]);
    assert!(storage.usage().memory < MIB + 10 * KIB, "it is not there twice");
    let small = storage.get("small", 0, &SHARED).await.unwrap().unwrap();
    assert!(small.shared.is_none() && small.body.len() == KIB);
    storage.close().await.unwrap();
    client.close(true).unwrap();
}

#[tokio::test]
async fn who_asks_at_the_same_time_is_told_the_same_place() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, client) = shared(&settings(16 * MIB, 0), dir.path()).await;
    put_in_pieces(&storage, "a", &bytes(1, MIB)).await.unwrap();
    let got = || async { storage.get("a", 0, &SHARED).await.unwrap().unwrap().shared.unwrap() };
    let (one, two, three) = tokio::join!(got(), got(), got());
    assert!(one == two && two == three);
    assert_eq!(read(&client, &one).unwrap()[..], bytes(1, MIB)[..]);
    storage.close().await.unwrap();
    client.close(true).unwrap();
}

#[tokio::test]
async fn what_is_to_persist_is_written_before_it_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let settings = config::Storage { persist: true, ..settings(4 * MIB, 64 * MIB) };
    let (storage, client) = shared(&settings, dir.path()).await;
    let key = hand_over(&client, &bytes(1, MIB));
    storage.put_shared("a", 1, None, key.clone()).await.unwrap();
    assert!(!client.exists(&key).unwrap());
    storage.close().await.unwrap();
    client.close(true).unwrap();
    let storage = open(&settings, dir.path()).await;
    assert_eq!(get(&storage, "a", 1).await.unwrap(), bytes(1, MIB));
}

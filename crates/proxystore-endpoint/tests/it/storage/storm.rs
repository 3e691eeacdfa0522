//! Many at once: every object that is got is whole, and of a put that was begun.

use std::sync::Arc;

use proxystore::Key;
use proxystore::connectors::shm::ShmConnector;
use proxystore::connectors::{Access, Connector, GetOptions, PutOptions};

use super::*;

const IDS: u64 = 12;
const TASKS: u64 = 8;
const ROUNDS: u64 = 60;

/// The object of a put: which one it is of says its generation.
fn object(generation: u64) -> Bytes {
    let sizes = [10, 3 * KIB, 70 * KIB, 150 * KIB, 300 * KIB, 700 * KIB];
    bytes(generation, sizes[generation as usize % sizes.len()])
}

async fn one(storage: &Storage, client: &ShmConnector, task: u64) {
    let mut seed = task + 1;
    let mut next = |most: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % most
    };
    for round in 0..ROUNDS {
        let id = format!("o{}", next(IDS));
        let generation = 1 + task * ROUNDS + round;
        let object_of_mine = object(generation);
        match next(9) {
            0 => put(storage, &id, generation, &object_of_mine).await.unwrap(),
            1 => {
                let (sender, body) = Body::coming(object_of_mine.len() as u64);
                let send = async move {
                    for piece in object_of_mine.chunks(PIECE / 4) {
                        let _ = sender.send(Ok(Bytes::copy_from_slice(piece))).await;
                    }
                };
                tokio::join!(storage.put(&id, generation, None, body), send).0.unwrap();
            }
            2 => {
                let key = client.put(&object_of_mine[..].into(), &PutOptions::default()).unwrap();
                storage.put_shared(&id, generation, None, key).await.unwrap();
            }
            3 => storage.evict(&id, 0).await.unwrap(),
            4 => drop(storage.stat(&id, 0, true).await.unwrap()),
            5 => {
                // Its caller goes in the middle.
                let patience = Duration::from_micros(next(2000));
                let putting = put(storage, &id, generation, &object_of_mine);
                let _ = tokio::time::timeout(patience, putting).await;
            }
            what => {
                let wanted = Wanted { range: None, shared: what == 6 };
                let Some(found) = storage.get(&id, 0, &wanted).await.unwrap() else { continue };
                let expected = object(found.stat.generation);
                if let Some(place) = found.shared {
                    let key = Key::new(place.id.as_str(), place.generation, place.size);
                    let options = GetOptions { access: Access::ReadOnly, ..GetOptions::default() };
                    let got = client.get(&key, &options).unwrap();
                    assert!(got.is_none_or(|got| got[..] == expected[..]), "{id}");
                } else {
                    tokio::task::yield_now().await;
                    assert!(all(found.body).await == expected, "{id}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_got_is_whole_whatever_happens_at_the_same_time() {
    for persist in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let name = format!("test-{}", proxystore::key::unique_id().unwrap());
        let settings = config::Storage { persist, ..settings(MIB, 64 * MIB) };
        let storage = Storage::open(&settings, dir.path(), Some(&name)).await.unwrap();
        let client = ShmConnector::new(&name).unwrap();
        let (storage, client) = (Arc::new(storage), Arc::new(client));
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let (storage, client) = (Arc::clone(&storage), Arc::clone(&client));
                tokio::spawn(async move { one(&storage, &client, task).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        // What callers began who went comes to its end meanwhile.
        let cleared = async {
            while (storage.usage().memory, storage.usage().disk) != (0, 0) {
                storage.clear("o").await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), cleared).await.expect("something is kept");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "the lock alone");
        storage.close().await.unwrap();
        client.close(true).unwrap();
    }
}

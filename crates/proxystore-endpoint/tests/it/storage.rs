//! What storage promises: bounds, nothing lost, nothing half, nothing stale.

mod crash;
mod disk;
mod model;
mod shared;
mod storm;
mod waiting;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use proxystore::ErrorKind;
use proxystore_endpoint::body::{Body, PIECE};
use proxystore_endpoint::config;
use proxystore_endpoint::storage::{Found, Storage, Usage, Wanted};
use tokio::time::Instant;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

fn settings(memory: u64, disk: u64) -> config::Storage {
    config::Storage { memory, disk, ..config::Storage::default() }
}

async fn open(settings: &config::Storage, directory: &Path) -> Storage {
    Storage::open(settings, directory, None).await.unwrap()
}

/// Bytes that tell which object they are of, and where in it they are.
fn bytes(seed: u64, len: u64) -> Bytes {
    let word = |n: u64| (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n).to_le_bytes();
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(word).collect();
    bytes.truncate(len as usize);
    bytes.into()
}

async fn put(
    storage: &Storage,
    id: &str,
    generation: u64,
    bytes: &Bytes,
) -> proxystore::Result<()> {
    storage.put(id, generation, None, bytes.clone().into()).await
}

async fn all(mut body: Body) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(piece) = body.next().await {
        bytes.extend_from_slice(&piece.unwrap());
    }
    bytes
}

async fn get(storage: &Storage, id: &str, generation: u64) -> Option<Vec<u8>> {
    let found = storage.get(id, generation, &Wanted::default()).await.unwrap();
    match found {
        Some(Found { stat, body, .. }) => {
            let bytes = all(body).await;
            assert_eq!(bytes.len() as u64, stat.size);
            Some(bytes)
        }
        None => None,
    }
}

/// Sends a body in pieces while it is stored.
async fn put_in_pieces(storage: &Storage, id: &str, bytes: &Bytes) -> proxystore::Result<()> {
    let (sender, body) = Body::coming(bytes.len() as u64);
    let pieces: Vec<Bytes> = (0..bytes.len())
        .step_by(PIECE)
        .map(|at| bytes.slice(at..(at + PIECE).min(bytes.len())))
        .collect();
    let send = async move {
        for piece in pieces {
            let _ = sender.send(Ok(piece)).await; // storage may have refused it by then
        }
    };
    tokio::join!(storage.put(id, 1, None, body), send).0
}

#[tokio::test]
async fn objects_of_any_size_come_back_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&settings(MIB, 64 * MIB), dir.path()).await;
    for (seed, size) in (0..).zip([0, 1, 1000, 64 * KIB, 100 * KIB, 300 * KIB, 5 * MIB]) {
        let bytes = bytes(seed, size);
        put(&storage, "whole", seed + 10, &bytes).await.unwrap();
        put_in_pieces(&storage, "pieces", &bytes).await.unwrap();
        assert_eq!(get(&storage, "whole", 0).await.unwrap(), bytes);
        assert_eq!(get(&storage, "whole", seed + 10).await.unwrap(), bytes);
        assert_eq!(get(&storage, "whole", seed + 9).await, None, "an older generation is absent");
        assert_eq!(get(&storage, "pieces", 0).await.unwrap(), bytes);
        let stat = storage.stat("pieces", 0, true).await.unwrap().unwrap();
        assert_eq!((stat.size, stat.hash), (size, Some(*blake3::hash(&bytes).as_bytes())));
        let half = Wanted { range: Some(size / 2..size), ..Wanted::default() };
        let found = storage.get("pieces", 0, &half).await.unwrap().unwrap();
        assert_eq!(all(found.body).await, bytes[size as usize / 2..]);
        let beyond = Wanted { range: Some(0..size + 1), ..Wanted::default() };
        let error = storage.get("pieces", 0, &beyond).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    }
    storage.evict("whole", 1).await.unwrap();
    assert!(get(&storage, "whole", 0).await.is_some(), "that was another generation");
    storage.evict("whole", 0).await.unwrap();
    storage.clear("pie").await.unwrap();
    assert_eq!(get(&storage, "whole", 0).await, None);
    let usage = storage.usage();
    assert_eq!((usage.objects, usage.memory, usage.disk), (0, 0, 0));
    storage.close().await.unwrap();
    assert_eq!(put(&storage, "x", 1, &bytes(0, 1)).await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn who_reads_an_object_reads_on_when_it_is_replaced_or_evicted() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&settings(MIB, 64 * MIB), dir.path()).await;
    for size in [800 * KIB, 4 * MIB] {
        let old = bytes(1, size);
        put(&storage, "a", 1, &old).await.unwrap();
        let first = storage.get("a", 0, &Wanted::default()).await.unwrap().unwrap();
        put(&storage, "a", 2, &bytes(2, size)).await.unwrap();
        let second = storage.get("a", 0, &Wanted::default()).await.unwrap().unwrap();
        storage.evict("a", 0).await.unwrap();
        assert_eq!(all(first.body).await, old);
        assert_eq!(all(second.body).await, bytes(2, size));
    }
}

#[tokio::test]
async fn what_is_read_counts_and_stays_in_memory_until_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&settings(MIB, 64 * MIB), dir.path()).await;
    for (n, size) in (0..).zip([100 * KIB, 300 * KIB]) {
        let (id, bytes, others) = (format!("read{n}"), bytes(n, size), bytes(9, 100 * KIB));
        put_in_pieces(&storage, &id, &bytes).await.unwrap();
        let found = storage.get(&id, 0, &Wanted::default()).await.unwrap().unwrap();
        for n in 0..30 {
            put(&storage, &format!("other{n}"), 1, &others).await.unwrap();
        }
        // Whatever is on disk would be read from there, and this is gone.
        for file in std::fs::read_dir(dir.path()).unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
        assert_eq!(get(&storage, &id, 0).await.unwrap(), bytes);
        storage.clear("").await.unwrap();
        assert!((size..size + 4 * KIB).contains(&storage.usage().memory), "{:?}", storage.usage());
        assert_eq!(all(found.body).await, bytes);
        assert_eq!(storage.usage().memory, 0);
    }
}

#[tokio::test]
async fn what_a_put_that_broke_off_brought_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    for persist in [false, true] {
        let settings = config::Storage { persist, ..settings(MIB, 64 * MIB) };
        let storage = open(&settings, dir.path()).await;
        put(&storage, "a", 1, &bytes(1, 100)).await.unwrap();
        let before = storage.usage();
        for size in [100 * KIB, 500 * KIB, 20 * MIB] {
            let (sender, body) = Body::coming(size);
            let send = async move {
                sender.send(Ok(bytes(2, size / 2))).await.unwrap();
                drop(sender);
            };
            let (stored, ()) = tokio::join!(storage.put("a", 2, None, body), send);
            assert_eq!(stored.unwrap_err().kind(), ErrorKind::Io);
            assert_eq!(get(&storage, "a", 0).await.unwrap(), bytes(1, 100));
            let usage = storage.usage();
            assert_eq!((usage.memory, usage.disk), (before.memory, before.disk));
        }
        // One whose caller went away.
        let (sender, body) = Body::coming(20 * MIB);
        let half = async {
            sender.send(Ok(bytes(2, 10 * MIB))).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        tokio::select! {
            _ = storage.put("a", 2, None, body) => panic!("it cannot be there"),
            () = half => {}
        }
        let files = || std::fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.path());
        let parts = || files().filter(|path| path.extension().is_some_and(|e| e == "part")).count();
        let begun = Instant::now();
        while parts() > 0 || storage.usage().disk > before.disk {
            assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", files().collect::<Vec<_>>());
            tokio::time::sleep(Duration::from_millis(1)).await; // for a thread that still writes
        }
        storage.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_full_endpoint_says_so_and_keeps_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(256 * KIB, MIB);
    let storage = open(&settings, dir.path()).await;
    let mut stored = Vec::new();
    let error = loop {
        let n = stored.len() as u64;
        let bytes = bytes(n, 10 * KIB);
        match put(&storage, &format!("o{n}"), 1, &bytes).await {
            Ok(()) => stored.push(bytes),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Full);
    let text = error.to_string();
    for part in ["memory=", "disk=", " of 262144", " of 1048576", "evict", "raise"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let usage = storage.usage();
    assert!(usage.memory <= 256 * KIB && usage.disk <= MIB);
    assert!(stored.len() > 115, "only {} fit", stored.len());
    assert!(put_in_pieces(&storage, "large", &bytes(0, 2 * MIB)).await.is_err());
    for (n, bytes) in stored.iter().enumerate() {
        assert_eq!(get(&storage, &format!("o{n}"), 0).await.as_deref(), Some(&bytes[..]));
    }
    storage.clear("o").await.unwrap();
    put(&storage, "o", 1, &stored[0]).await.unwrap();
    let long = config::Storage { max_object: 10, ..settings };
    storage.close().await.unwrap();
    assert_eq!(open(&long, dir.path()).await.usage().objects, 0);
}

#[tokio::test]
async fn what_takes_less_than_its_file_is_not_moved_to_disk() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&settings(256 * KIB, MIB), dir.path()).await;
    let mut stored = 0;
    while put(&storage, &format!("o{stored}"), 1, &bytes(stored, stored % 300)).await.is_ok() {
        stored += 1;
    }
    assert!(stored > 200, "only {stored} fit");
    assert_eq!(get(&storage, "o42", 0).await.unwrap(), bytes(42, 42));
    let files = std::fs::read_dir(dir.path()).unwrap().count();
    assert!(files < 30, "{files} files"); // the lock, and what came when memory was full
}

#[tokio::test]
async fn what_is_used_stays_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&settings(512 * KIB, 64 * MIB), dir.path()).await;
    put(&storage, "hot", 1, &bytes(0, 10 * KIB)).await.unwrap();
    for n in 0..200 {
        put(&storage, &format!("cold{n}"), 1, &bytes(n, 10 * KIB)).await.unwrap();
        assert!(storage.get("hot", 0, &Wanted::default()).await.unwrap().is_some());
    }
    // Whatever is on disk would be read from there, and this is gone.
    for file in std::fs::read_dir(dir.path()).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    assert_eq!(get(&storage, "hot", 0).await.unwrap(), bytes(0, 10 * KIB));
    let error = storage.get("cold0", 0, &Wanted::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
}

#[tokio::test(start_paused = true)]
async fn objects_end_when_they_should() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&settings(MIB, 64 * MIB), dir.path()).await;
    let second = Duration::from_secs(1);
    for (id, ttl) in [("a", Some(second)), ("b", Some(second)), ("c", None), ("d", Some(second))] {
        storage.put(id, 1, ttl, bytes(0, 10 * KIB).into()).await.unwrap();
    }
    storage.put("now", 1, Some(Duration::ZERO), bytes(0, 10).into()).await.unwrap();
    assert_eq!(get(&storage, "now", 0).await, None);
    storage.expire("b", 0, None).await.unwrap();
    storage.expire("c", 7, Some(second)).await.unwrap(); // of another generation
    storage.expire("d", 1, Some(3 * second)).await.unwrap();
    tokio::time::advance(second.checked_sub(Duration::from_millis(1)).unwrap()).await;
    assert!(get(&storage, "a", 0).await.is_some());
    tokio::time::advance(Duration::from_millis(1)).await;
    for (id, is_there) in [("a", false), ("b", true), ("c", true), ("d", true)] {
        assert_eq!(get(&storage, id, 0).await.is_some(), is_there, "{id}");
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(storage.usage().objects, 3, "what expired is freed soon");
    tokio::time::sleep(2 * second).await;
    assert_eq!(storage.usage().objects, 2);
    storage.clear("").await.unwrap();
    assert_eq!((storage.usage().memory, storage.usage().disk), (0, 0));
}

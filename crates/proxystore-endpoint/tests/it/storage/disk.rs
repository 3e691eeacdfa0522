//! Objects on disk: over restarts, damaged, and when the device is full.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::*;

fn persisting(memory: u64, disk: u64) -> config::Storage {
    config::Storage { persist: true, ..settings(memory, disk) }
}

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|e| e == extension)).collect()
}

#[tokio::test]
async fn what_persists_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    for sync in [false, true] {
        let settings = config::Storage { sync, ..persisting(MIB, 64 * MIB) };
        let storage = open(&settings, dir.path()).await;
        for (n, size) in (0..).zip([0, 1000, 100 * KIB, 5 * MIB]) {
            put(&storage, &format!("o{n}"), 1, &bytes(9, 10)).await.unwrap();
            put_in_pieces(&storage, &format!("o{n}"), &bytes(n, size)).await.unwrap();
        }
        put(&storage, "gone", 1, &bytes(0, 10)).await.unwrap();
        storage.evict("gone", 0).await.unwrap();
        let hour = Some(Duration::from_hours(1));
        storage.put("short", 1, Some(Duration::from_millis(1)), bytes(0, 10).into()).await.unwrap();
        storage.put("renewed", 1, Some(Duration::ZERO), Body::empty()).await.unwrap();
        storage.put("renewed", 2, hour, bytes(0, 10).into()).await.unwrap();
        storage.put("shortened", 1, hour, bytes(0, 10).into()).await.unwrap();
        storage.expire("shortened", 1, Some(Duration::from_millis(1))).await.unwrap();
        let usage = storage.usage();
        assert!(usage.disk > 5 * MIB && usage.memory < MIB, "{usage:?}");
        storage.close().await.unwrap();
        drop(storage);
        tokio::time::sleep(Duration::from_millis(5)).await;
        // Also by an endpoint that is told to persist no more: what is there is not thrown away.
        let storage = open(&config::Storage { persist: false, ..settings }, dir.path()).await;
        for (n, size) in (0..).zip([0, 1000, 100 * KIB, 5 * MIB]) {
            assert_eq!(get(&storage, &format!("o{n}"), 1).await.unwrap(), bytes(n, size));
        }
        for (id, is_there) in
            [("gone", false), ("short", false), ("shortened", false), ("renewed", true)]
        {
            assert_eq!(get(&storage, id, 0).await.is_some(), is_there, "{id}");
        }
        storage.clear("").await.unwrap();
        assert_eq!(files(dir.path(), "object"), Vec::<PathBuf>::new());
        storage.close().await.unwrap();
    }
}

#[tokio::test]
async fn what_persists_outlives_a_daemon_that_fails_or_is_stopped_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let settings = persisting(MIB, 64 * MIB);
    let mut storage = open(&settings, dir.path()).await;
    put(&storage, "a", 1, &bytes(1, 1000)).await.unwrap();
    for _ in 0..2 {
        drop(storage); // without closing it
        storage = reopened(&settings, dir.path()).await;
        assert_eq!(get(&storage, "a", 1).await.as_deref(), Some(&bytes(1, 1000)[..]));
    }
}

/// Opens what another is still letting go of.
async fn reopened(settings: &config::Storage, directory: &Path) -> Storage {
    let opening = async {
        loop {
            match Storage::open(settings, directory, None).await {
                Ok(storage) => return storage,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(1), opening).await.unwrap()
}

#[tokio::test]
async fn what_does_not_is_cleared_up() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&settings(64 * KIB, 64 * MIB), dir.path()).await;
    for n in 0..20 {
        put(&storage, &format!("o{n}"), 1, &bytes(n, 20 * KIB)).await.unwrap();
    }
    let spilled = files(dir.path(), "spill");
    assert!(!spilled.is_empty());
    fs::copy(&spilled[0], dir.path().join("00000000000000ff.part")).unwrap();
    let second = Storage::open(&settings(64 * KIB, 0), dir.path(), None).await.unwrap_err();
    assert!(second.to_string().contains("another endpoint uses the directory"), "{second}");
    fs::copy(&spilled[0], dir.path().join("00000000000000fe.spill")).unwrap();
    storage.close().await.unwrap();
    drop(storage);
    let storage = open(&persisting(64 * KIB, 64 * MIB), dir.path()).await;
    assert_eq!(storage.usage().objects, 0);
    assert!(files(dir.path(), "spill").is_empty() && files(dir.path(), "part").is_empty());
}

#[tokio::test]
async fn files_of_others_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let others = ["cafe.part", "1.spill", "+0000000000000001.spill", "notes.object", "b.object"];
    let folders = ["00000000000000aa.part", "00000000000000ab.object"];
    for name in others {
        fs::write(dir.path().join(name), "theirs").unwrap();
    }
    for name in folders {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    for _ in 0..2 {
        let storage = open(&persisting(MIB, 64 * MIB), dir.path()).await;
        put(&storage, "a", 1, &bytes(1, 1000)).await.unwrap();
        assert_eq!(storage.usage().objects, 1);
        storage.close().await.unwrap();
    }
    for name in others {
        assert_eq!(fs::read_to_string(dir.path().join(name)).unwrap(), "theirs");
    }
}

#[tokio::test]
async fn damaged_files_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&persisting(MIB, 64 * MIB), dir.path()).await;
    for n in 0..6 {
        put(&storage, &format!("o{n}"), 1, &bytes(n, 1000)).await.unwrap();
    }
    storage.close().await.unwrap();
    drop(storage);
    let mut found = files(dir.path(), "object");
    found.sort();
    let damage = |n: usize, how: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = fs::read(&found[n]).unwrap();
        how(&mut bytes);
        fs::write(&found[n], bytes).unwrap();
    };
    damage(0, &|bytes| bytes.truncate(500));
    damage(1, &|bytes| bytes.push(0));
    damage(2, &|bytes| bytes[16] ^= 1); // the generation
    damage(3, &|bytes| bytes[65] ^= 1); // the id
    damage(4, &Vec::clear);
    let storage = open(&persisting(MIB, 64 * MIB), dir.path()).await;
    assert_eq!(storage.usage().objects, 1);
    assert_eq!(get(&storage, "o5", 1).await.unwrap(), bytes(5, 1000));
    for n in 0..5 {
        assert_eq!(get(&storage, &format!("o{n}"), 0).await, None);
    }
    assert_eq!(files(dir.path(), "object").len(), 6, "whoever can may still mend them");
    // They do not get in the way of new ones.
    put(&storage, "o0", 2, &bytes(7, 1000)).await.unwrap();
    assert_eq!(get(&storage, "o0", 0).await.unwrap(), bytes(7, 1000));
}

#[tokio::test]
async fn a_damaged_file_is_not_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&persisting(MIB, 64 * MIB), dir.path()).await;
    put(&storage, "a", 1, &bytes(1, 1000)).await.unwrap();
    storage.close().await.unwrap();
    drop(storage);
    let file = &files(dir.path(), "object")[0];
    fs::File::options().write(true).open(file).unwrap().set_len(500).unwrap();
    let storage = open(&persisting(MIB, 64 * MIB), dir.path()).await;
    for n in 0..20 {
        put(&storage, &format!("o{n}"), 1, &bytes(n, 1000)).await.unwrap();
    }
    storage.clear("").await.unwrap();
    assert_eq!(fs::metadata(file).unwrap().len(), 500);
}

#[tokio::test]
async fn a_file_cut_short_under_the_daemon_is_no_shorter_object() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&persisting(64 * KIB, 64 * MIB), dir.path()).await;
    put(&storage, "a", 1, &bytes(1, 100 * KIB)).await.unwrap();
    let file = &files(dir.path(), "object")[0];
    fs::File::options().write(true).open(file).unwrap().set_len(50 * KIB).unwrap();
    let error = storage.get("a", 1, &Wanted::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

/// A file system of 4 MiB, unmounted when this is dropped.
struct Small(tempfile::TempDir);

impl Small {
    /// `None` where mounting is not allowed, which is no excuse for the server that tests.
    fn mount() -> Option<Self> {
        let disk = Self(tempfile::tempdir().unwrap());
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(disk.0.path());
        if mount.output().is_ok_and(|output| output.status.success()) {
            return Some(disk);
        }
        let must_be = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!must_be, "cannot mount a tmpfs");
        None
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

#[tokio::test]
async fn a_full_device_loses_nothing() {
    let Some(device) = Small::mount() else { return };
    for persist in [false, true] {
        // It believes that there is far more than there is.
        let settings = config::Storage { persist, ..settings(MIB, 1 << 40) };
        let objects = device.0.path().join("objects");
        let storage = open(&settings, &objects).await;
        let mut stored = Vec::new();
        let error = loop {
            let n = stored.len() as u64;
            let bytes = bytes(n, 50 * KIB);
            match put(&storage, &format!("o{n}"), 1, &bytes).await {
                Ok(()) => stored.push(bytes),
                Err(error) => break error,
            }
            assert!(stored.len() < 200, "more than there is room for");
        };
        assert_eq!(error.kind(), ErrorKind::Full);
        assert!(error.to_string().contains("free space"), "{error}");
        let error = put_in_pieces(&storage, "large", &bytes(0, 8 * MIB)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full);
        assert!(files(&objects, "part").is_empty());
        assert!(stored.len() > 60, "only {}", stored.len());
        for (n, bytes) in stored.iter().enumerate() {
            assert_eq!(get(&storage, &format!("o{n}"), 0).await.as_deref(), Some(&bytes[..]));
        }
        storage.clear("").await.unwrap();
        put_in_pieces(&storage, "large", &bytes(0, 2 * MIB)).await.unwrap();
        storage.clear("").await.unwrap();
        assert_eq!((storage.usage().memory, storage.usage().disk), (0, 0));
        storage.close().await.unwrap();
    }
}

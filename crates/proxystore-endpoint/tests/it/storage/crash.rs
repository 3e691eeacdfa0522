//! Processes of their own: one that is killed, one whose memory is measured.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::*;

const ROLE: &str = "STORAGE_ROLE";
const PLACE: &str = "STORAGE_PLACE";

fn spawn(role: &str, place: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "storage::crash::other_process", "--ignored", "--nocapture"])
        .env(ROLE, role)
        .env(PLACE, place)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "the other process of the tests below"]
fn other_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let place = std::env::var(PLACE).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        match role.as_str() {
            "writer" => write_for_ever(Path::new(&place)).await,
            "streamer" => stream(Path::new(&place)).await,
            role => panic!("unknown role {role}"),
        }
    });
}

fn tell(line: &str) {
    use std::io::Write;
    let mut out = std::io::stdout();
    writeln!(out, "\n{line}").unwrap(); // the harness may have begun a line of its own
    out.flush().unwrap();
}

async fn kept(place: &Path) -> Storage {
    let settings = config::Storage { persist: true, ..settings(2 * MIB, 4096 * MIB) };
    open(&settings, place).await
}

fn size_of(n: u64) -> u64 {
    [100, 5000, 70_000, 600_000][n as usize % 4]
}

/// Puts objects, replaces and evicts some, and tells what was acknowledged.
async fn write_for_ever(place: &Path) {
    let storage = kept(place).await;
    let start: u64 = storage.usage().objects * 1000;
    for n in start.. {
        let id = format!("o{n}");
        if n % 3 == 0 {
            put(&storage, &id, 1, &bytes(0, size_of(n))).await.unwrap();
        }
        put_in_pieces(&storage, &id, &bytes(n, size_of(n))).await.unwrap();
        tell(&format!("put {n}"));
        if n % 5 == 0 {
            tell(&format!("evicting {n}"));
            storage.evict(&id, 0).await.unwrap();
            tell(&format!("evicted {n}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = std::collections::HashMap::new();
    for round in 0..4 {
        let mut child = spawn("writer", dir.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut left = 60 + round * 37;
        // All that it told is read, also what it told between the decision and the kill.
        while let Some(Ok(line)) = lines.next() {
            if let Some((told, Ok(n))) = line.split_once(' ').map(|(a, n)| (a, n.parse::<u64>())) {
                let there = match told {
                    "put" => Some(true),
                    "evicting" => None,
                    _ => Some(false),
                };
                expected.insert(n, there);
                left -= 1;
                if left == 0 {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        let storage = kept(dir.path()).await;
        for (n, there) in &expected {
            let found = get(&storage, &format!("o{n}"), 0).await;
            if let Some(there) = there {
                assert_eq!(found.is_some(), *there, "object {n}");
            }
            assert!(found.is_none_or(|found| found == bytes(*n, size_of(*n))), "object {n}");
        }
        storage.close().await.unwrap();
    }
}

const LONG: u64 = 256 * MIB;

/// Stores and reads an object that is far longer than its memory, and tells how much it took.
async fn stream(place: &Path) {
    let storage = open(&settings(16 * MIB, 1024 * MIB), place).await;
    let part = bytes(1, MIB);
    let (sender, body) = Body::coming(LONG);
    let send = async {
        for _ in 0..LONG / MIB {
            sender.send(Ok(Bytes::copy_from_slice(&part))).await.unwrap();
        }
    };
    let (stored, ()) = tokio::join!(storage.put("a", 1, None, body), send);
    stored.unwrap();
    let mut body = storage.get("a", 0, &Wanted::default()).await.unwrap().unwrap().body;
    let mut at = 0;
    while let Some(piece) = body.next().await {
        let piece = piece.unwrap();
        assert!(piece == part[at..at + piece.len()]);
        at = (at + piece.len()) % part.len();
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    tell(&format!("peak {}", peak.trim().trim_end_matches(" kB")));
}

#[cfg(target_os = "linux")]
#[test]
fn a_long_object_passes_in_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let output = spawn("streamer", dir.path()).wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let peak = text.lines().find_map(|line| line.strip_prefix("peak ")).unwrap();
    let peak = peak.parse::<u64>().unwrap() * KIB;
    assert!(peak < 64 * MIB, "{peak} bytes for an object of {LONG}");
}

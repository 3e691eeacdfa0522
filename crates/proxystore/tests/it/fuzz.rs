//! The fuzz targets on known bytes and on mutations of them, the same ones every time.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use proxystore::testkit::fuzz::{TARGETS, Target};

/// Mutations of each seed; all of them together take seconds.
const MUTATIONS: usize = 400;

/// Where the seeds of a target lie: what old versions wrote, and what once went wrong.
fn folders(target: &str) -> [PathBuf; 2] {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    [here.join("tests/it/corpus").join(target), here.join("../../fuzz/seeds").join(target)]
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let files = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<_> =
        folders(target).into_iter().flat_map(files).map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Random numbers that are the same in every run (`SplitMix64`).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    /// One to four changes: a byte, a number of the kind that is at the edge of something, bytes of
    /// another seed, a cut.
    fn mutate(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..=self.below(4) {
            // Heads are where the decisions are.
            let reach = if self.below(3) == 0 { bytes.len() } else { bytes.len().min(160) };
            let at = self.below(reach);
            match self.below(6) {
                0 => bytes.truncate(at),
                1 => {
                    let len = self.below(other.len().min(64));
                    let from = self.below(other.len() - len);
                    bytes.splice(at..at, other[from..from + len].iter().copied());
                }
                2 if at + 8 <= bytes.len() => {
                    let edges = [0, 1, u64::MAX, 1 << 31, 1 << 32, 1 << 63, bytes.len() as u64];
                    let edge = edges[self.below(edges.len())].to_le_bytes();
                    let len = [1, 2, 4, 8][self.below(4)];
                    bytes[at..at + len].copy_from_slice(&edge[..len]);
                }
                _ if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                _ => bytes.push(self.next() as u8),
            }
        }
    }
}

fn run(target: &Target, bytes: &[u8]) {
    if catch_unwind(|| (target.run)(bytes)).is_err() {
        let hex = data_encoding::HEXLOWER.encode(bytes);
        panic!("target {} fails with {hex}", target.name);
    }
}

#[test]
fn no_target_fails_with_known_bytes_and_mutations_of_them() {
    for target in TARGETS {
        let seeds = seeds(target.name);
        assert!(!seeds.is_empty(), "no seeds for {}: {:?}", target.name, folders(target.name));
        let mut numbers = Numbers(1);
        for seed in &seeds {
            run(target, seed);
            for _ in 0..MUTATIONS {
                let mut bytes = seed.clone();
                let other = &seeds[numbers.below(seeds.len())];
                numbers.mutate(&mut bytes, other);
                run(target, &bytes);
            }
        }
    }
}

#[test]
fn every_target_has_a_binary() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets");
    let mut found: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    found.sort();
    let mut names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    #[cfg(not(feature = "redis"))]
    names.push("redis");
    names.sort_unstable();
    assert_eq!(found, names);
}

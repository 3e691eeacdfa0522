//! Any sequence of calls, compared with what a map would do.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Op {
    Put { id: u8, generation: u64, size: u64, in_pieces: bool },
    Get { id: u8, generation: u64, range: (u64, u64) },
    Evict { id: u8, generation: u64 },
    Expire { id: u8, generation: u64, ttl: Option<u64> },
    Clear { id: u8 },
    Advance(u64),
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let id = 0..6_u8;
    let generation = 0..3_u64;
    let size = prop_oneof![0..3000_u64, 0..40_000_u64, 60_000..400_000_u64];
    prop_oneof![
        6 => (id.clone(), 1..3_u64, size, any::<bool>())
            .prop_map(|(id, generation, size, in_pieces)| Op::Put { id, generation, size, in_pieces }),
        6 => (id.clone(), generation.clone(), (0..=100_u64, 0..=100_u64))
            .prop_map(|(id, generation, range)| Op::Get { id, generation, range }),
        2 => (id.clone(), generation.clone()).prop_map(|(id, generation)| Op::Evict { id, generation }),
        2 => (id.clone(), generation, prop::option::of(0..100_u64))
            .prop_map(|(id, generation, ttl)| Op::Expire { id, generation, ttl }),
        1 => id.prop_map(|id| Op::Clear { id }),
        1 => (0..60_u64).prop_map(Op::Advance),
        1 => Just(Op::Restart),
    ]
}

struct Expected {
    generation: u64,
    bytes: Bytes,
    end: Option<Instant>,
}

/// Waits until what has ended is gone, which it is a little later. No time of this test passes.
async fn until(storage: &Storage, is_so: impl Fn(&Usage) -> bool) {
    let begun = std::time::Instant::now();
    while !is_so(&storage.usage()) {
        assert!(begun.elapsed() < Duration::from_mins(1), "{:?}", storage.usage());
        tokio::task::yield_now().await;
    }
}

async fn run(settings: config::Storage, ops: Vec<Op>) {
    let dir = tempfile::tempdir().unwrap();
    let mut storage = open(&settings, dir.path()).await;
    let mut model: HashMap<String, Expected> = HashMap::new();
    let is = |id: u8| format!("o{id}");
    for (seed, op) in (0..).zip(ops) {
        model.retain(|_, object| object.end.is_none_or(|end| end > Instant::now()));
        match op {
            Op::Put { id, generation, size, in_pieces } => {
                let (id, bytes) = (is(id), bytes(seed, size));
                let stored = if in_pieces {
                    let (sender, body) = Body::coming(size);
                    let send = async {
                        for piece in bytes.chunks(1 << 15) {
                            let _ = sender.send(Ok(Bytes::copy_from_slice(piece))).await;
                        }
                    };
                    tokio::join!(storage.put(&id, generation, None, body), send).0
                } else {
                    put(&storage, &id, generation, &bytes).await
                };
                match stored {
                    Ok(()) => drop(model.insert(id, Expected { generation, bytes, end: None })),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Full),
                }
            }
            Op::Get { id, generation, range: (start, part) } => {
                let of = |object: &&Expected| generation == 0 || object.generation == generation;
                let expected = model.get(&is(id)).filter(of);
                let range = expected.map(|object| {
                    let size = object.bytes.len() as u64;
                    let start = size * start / 100;
                    start..start + (size - start) * part / 100
                });
                let wanted = Wanted { range: range.clone(), ..Wanted::default() };
                let found = storage.get(&is(id), generation, &wanted).await.unwrap();
                assert_eq!(found.is_some(), expected.is_some());
                if let (Some(found), Some(object), Some(range)) = (found, expected, range) {
                    let range = range.start as usize..range.end as usize;
                    assert!(all(found.body).await == object.bytes[range]);
                }
                assert!(
                    get(&storage, &is(id), generation).await.as_deref()
                        == expected.map(|o| &o.bytes[..])
                );
            }
            Op::Evict { id, generation } => {
                storage.evict(&is(id), generation).await.unwrap();
                if model.get(&is(id)).is_some_and(|o| generation == 0 || o.generation == generation)
                {
                    model.remove(&is(id));
                }
            }
            Op::Expire { id, generation, ttl } => {
                let ttl = ttl.map(Duration::from_secs);
                storage.expire(&is(id), generation, ttl).await.unwrap();
                if let Some(object) = model.get_mut(&is(id))
                    && (generation == 0 || object.generation == generation)
                {
                    object.end = ttl.map(|ttl| Instant::now() + ttl);
                }
            }
            Op::Clear { id } => {
                storage.clear(&is(id)).await.unwrap();
                model.remove(&is(id));
            }
            Op::Advance(seconds) => tokio::time::advance(Duration::from_secs(seconds)).await,
            Op::Restart => {
                // The clock of this test is not the one that ends are written down by.
                if model.values().any(|object| object.end.is_some()) {
                    continue;
                }
                until(&storage, |usage| usage.objects == model.len() as u64).await;
                storage.close().await.unwrap();
                drop(storage);
                storage = open(&settings, dir.path()).await;
                if !settings.persist {
                    model.clear();
                }
            }
        }
        let usage = storage.usage();
        assert!(usage.memory <= usage.memory_limit && usage.disk <= usage.disk_limit, "{usage:?}");
        // What ends at once may be gone already.
        let lasting =
            model.values().filter(|object| object.end.is_none_or(|end| end > Instant::now()));
        let sum = lasting.map(|object| object.bytes.len() as u64).sum::<u64>();
        assert!(usage.memory + usage.disk >= sum, "{usage:?}");
    }
    storage.clear("o").await.unwrap();
    until(&storage, |usage| (usage.objects, usage.memory, usage.disk) == (0, 0, 0)).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn storage_does_what_a_map_does(
        ops in prop::collection::vec(op(), 1..60), persist: bool, disk in 0..1_500_000_u64,
    ) {
        let settings = config::Storage { persist, ..settings(200 * KIB, disk) };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all().start_paused(true).build().unwrap();
        runtime.block_on(run(settings, ops));
    }
}

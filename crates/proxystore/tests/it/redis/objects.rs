//! Objects: their parts, their time to live, and what is removed with them.

use std::time::Duration;

use proxystore::ErrorKind;
use proxystore::Key;
use proxystore::connectors::{Connector, GetOptions, PutOptions, Value};
use proxystore::payload::Parts;
use redis::cmd;

use super::{fill, get, keys, open, put, small_parts, try_put};
use crate::servers::{Kind, Redis, needs_redis};

fn hundred() -> Vec<u8> {
    (0..100).collect()
}

#[test]
fn a_stored_object_has_the_bytes_of_the_specification() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    let connector = open(&server, &[("namespace", super::text("run"))]);
    let key = put(&connector, b"hello");
    assert!(key.id().starts_with("run."), "{key}");
    let name = format!("proxystore:{{{}}}", key.id());
    let bytes: Vec<u8> = cmd("GET").arg(&name).query(&mut server.connect()).unwrap();
    let head = b"\x89PXR\r\n\x01\0\x05\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\x0c\xb2\x2a\x12";
    assert_eq!(bytes, [&head[..], b"hello"].concat());
}

#[test]
fn parts_come_and_go_with_their_object() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    let connector = open(&server, &small_parts());
    let key = put(&connector, &hundred());
    assert_eq!(keys(&server).len(), 11);
    assert_eq!(&get(&connector, &key).unwrap()[..], hundred());
    connector.evict(&key).unwrap();
    assert_eq!(keys(&server), Vec::<String>::new());

    let key = connector.new_key().unwrap();
    for bytes in [hundred(), hundred()[..60].to_vec(), b"short".to_vec(), hundred()] {
        fill(&connector, &key, &bytes);
        assert_eq!(&get(&connector, &key).unwrap()[..], bytes);
        let parts = if bytes.len() > 50 { bytes.len() / 10 } else { 0 };
        assert_eq!(keys(&server).len(), 1 + parts, "the parts of the older object are gone");
    }
    let mut other = open(&server, &[]); // reads what it would not put in parts itself
    assert_eq!(&get(&other, &key).unwrap()[..], hundred());
    other = open(&server, &[("namespace", super::text(connector.namespace()))]);
    other.close(true).unwrap();
    assert_eq!(keys(&server), Vec::<String>::new());
}

#[test]
fn a_range_reads_only_the_parts_it_needs() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    let connector = open(&server, &small_parts());
    let key = put(&connector, &hundred());
    let part = |index| format!("proxystore:{{{}}}:1:{index}", key.id());
    cmd("DEL").arg(part(0)).arg(part(4)).exec(&mut server.connect()).unwrap();
    let range =
        |range| connector.get(&key, &GetOptions { range: Some(range), ..GetOptions::default() });
    for (start, end) in [(10, 40), (15, 16), (12, 38), (50, 100), (99, 100), (40, 40)] {
        let bytes = range(start..end).unwrap().unwrap();
        assert_eq!(&bytes[..], &hundred()[start as usize..end as usize]);
    }
    let error = range(35..45).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let error = connector.get(&key, &GetOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    cmd("APPEND").arg(part(7)).arg("x").exec(&mut server.connect()).unwrap();
    let error = range(70..80).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[test]
fn large_objects_arrive_whole_or_not_at_all() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    let connector = open(&server, &[]);
    let stored = |seed: u8, len: usize| -> Vec<u8> {
        (0..len).map(|at| (at / 1000) as u8 ^ at as u8 ^ seed).collect()
    };
    for len in [(2 << 20) - 1, 2 << 20, (2 << 20) + 1, 5_000_000, 20 << 20] {
        let bytes = stored(1, len);
        let key = put(&connector, &bytes);
        assert!(get(&connector, &key).unwrap()[..] == bytes);
        let mut target = vec![0; len];
        assert!(connector.get_into(&key, None, &mut target).unwrap());
        assert!(target == bytes);
        let wrong = Key::new(key.id(), 1, 3 << 20); // a size is a hint
        assert!(get(&connector, &wrong).unwrap()[..] == bytes);
        assert!(get(&connector, &Key::new(key.id(), 7, key.size())).is_none());
        let name = format!("proxystore:{{{}}}", key.id());
        cmd("APPEND").arg(&name).arg("x").exec(&mut server.connect()).unwrap();
        let error = connector.get(&key, &GetOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        connector.evict(&key).unwrap();
        assert!(get(&connector, &key).is_none());
    }

    // One key filled again and again: what a reader gets is one of the objects.
    let key = connector.new_key().unwrap();
    let len = 4 << 20;
    let objects = [stored(1, len), stored(2, len)];
    fill(&connector, &key, &objects[0]);
    let known = Key::new(key.id(), 0, len as u64);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..40 {
                fill(&connector, &key, &objects[round % 2]);
            }
        });
        while !writer.is_finished() {
            let found = get(&connector, &known).unwrap();
            assert!(objects.iter().any(|object| found[..] == object[..]), "a mixed object");
        }
    });
}

#[test]
fn a_put_that_finds_no_room_leaves_nothing() {
    needs_redis!();
    let arguments = &["--maxmemory", "8mb", "--maxmemory-policy", "noeviction"];
    let server = Redis::start(Kind { arguments, ..Kind::default() });
    let sizes = [("whole_bytes", Value::Int(1 << 20)), ("part_bytes", Value::Int(1 << 20))];
    let connector = open(&server, &sizes);
    let bytes = vec![1; 20 << 20];
    let error = try_put(&connector, &bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    assert_eq!(keys(&server), Vec::<String>::new());
    let objects: Vec<_> = bytes.chunks(1 << 19).map(Parts::from).collect();
    let error = connector.put_batch(&objects, &PutOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    assert_eq!(keys(&server), Vec::<String>::new());
    let objects = [Parts::from(&bytes[..(2 << 20)]), Parts::from(&bytes[..])]; // each in parts
    let error = connector.put_batch(&objects, &PutOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    assert_eq!(keys(&server), Vec::<String>::new());
    put(&connector, b"fits");
}

#[test]
fn times_to_live_cover_all_parts() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    let mut options = small_parts().to_vec();
    options.push(("ttl", Value::Int(1000)));
    let connector = open(&server, &options);
    let left = || -> Vec<i64> {
        let mut control = server.connect();
        let left = |key| cmd("TTL").arg(key).query(&mut control).unwrap();
        keys(&server).into_iter().map(left).collect()
    };
    let whole = put(&connector, b"hello");
    let parts = put(&connector, &hundred());
    assert_eq!(left().len(), 12);
    assert!(left().iter().all(|left| (900..=1000).contains(left)), "{:?}", left());
    let keys = [whole.clone(), connector.new_key().unwrap(), parts.clone()];
    connector.expire(&keys, Some(Duration::from_secs(5000))).unwrap();
    assert!(left().iter().all(|left| (4900..=5000).contains(left)), "{:?}", left());
    connector.expire(&keys, None).unwrap();
    assert!(left().iter().all(|left| *left == -1), "{:?}", left());

    let ttl = Some(Duration::from_millis(1));
    let brief =
        connector.put(&Parts::from(&hundred()[..]), &PutOptions { ttl, ..PutOptions::default() });
    let brief = brief.unwrap();
    while connector.exists(&brief).unwrap() {
        std::thread::yield_now();
    }
    assert!(get(&connector, &brief).is_none());
    connector.expire(&[whole.clone(), parts.clone()], Some(Duration::ZERO)).unwrap();
    while connector.exists(&whole).unwrap() || connector.exists(&parts).unwrap() {
        std::thread::yield_now();
    }
}

#[test]
fn an_older_generation_does_not_expire_the_newer() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    let connector = open(&server, &[]);
    let key = connector.new_key().unwrap();
    let old = fill(&connector, &key, b"old");
    let new = fill(&connector, &key, b"new");
    connector.expire(std::slice::from_ref(&old), Some(Duration::ZERO)).unwrap();
    let left: i64 = cmd("TTL").arg(&keys(&server)[0]).query(&mut server.connect()).unwrap();
    assert_eq!(left, -1);
    assert_eq!(&get(&connector, &new).unwrap()[..], b"new");
}

#[test]
fn clear_removes_the_namespace_and_nothing_else() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    let (mine, other) = (open(&server, &small_parts()), open(&server, &[]));
    let longer = format!("{}x", mine.namespace());
    let similar = open(&server, &[("namespace", super::text(&longer))]);
    let stays = [(&other, put(&other, b"of another")), (&similar, put(&similar, b"similar"))];
    let own = format!("proxystore:{}", mine.namespace());
    for foreign in ["foreign", own.as_str(), "proxystore:{x}"] {
        cmd("SET").arg(foreign).arg("not an object").exec(&mut server.connect()).unwrap();
    }
    let objects: Vec<_> = (0..3000).map(|_| Parts::from(&b"x"[..])).collect();
    mine.put_batch(&objects, &PutOptions::default()).unwrap();
    put(&mine, &hundred());
    fill(&mine, &mine.new_key().unwrap(), b"filled");
    mine.close(true).unwrap();
    for (connector, key) in stays {
        assert!(connector.exists(&key).unwrap());
    }
    assert_eq!(keys(&server).len(), 5);
}

#[test]
fn batches_of_thousands_arrive_in_order() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    let mut options = small_parts().to_vec();
    options[0].1 = Value::Int(100_000);
    options[1].1 = Value::Int(70_000);
    let connector = open(&server, &options);
    let stored: Vec<Vec<u8>> = (0..5000_usize)
        .map(|n| {
            let len = if n % 1000 == 7 { 200_000 } else { n % 3000 };
            vec![n as u8; len]
        })
        .collect();
    let objects: Vec<_> = stored.iter().map(|bytes| Parts::from(&bytes[..])).collect();
    let keys = connector.put_batch(&objects, &PutOptions::default()).unwrap();
    let found = connector.get_batch(&keys, &GetOptions::default()).unwrap();
    for (found, stored) in found.iter().zip(&stored) {
        assert!(found.as_ref().unwrap()[..] == stored[..]);
    }
    connector.expire(&keys, Some(Duration::from_secs(5000))).unwrap();
    connector.close(true).unwrap();
    assert_eq!(super::keys(&server), Vec::<String>::new());
}

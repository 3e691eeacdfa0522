//! Clusters: keys on several servers, and keys that move.

use std::time::Duration;

use proxystore::ErrorKind;
use proxystore::connectors::redis::RedisConnector;
use proxystore::connectors::{Connector, GetOptions, PutOptions};
use proxystore::payload::Parts;
use redis::cmd;

use super::{fill, get, keys, put};
use crate::servers::{Cluster, Redis, needs_redis};

/// Runs a CLUSTER command on a server.
fn cluster<T: redis::FromRedisValue>(server: &Redis, arguments: &[&str]) -> T {
    cmd("CLUSTER").arg(arguments).query(&mut server.connect()).unwrap()
}

#[test]
fn batches_are_spread_and_cleared() {
    needs_redis!();
    let servers = Cluster::start();
    let connector = RedisConnector::new(&servers.url()).unwrap();
    let stored: Vec<_> = (0..3000_u32).map(u32::to_le_bytes).collect();
    let objects: Vec<_> = stored.iter().map(|bytes| Parts::from(&bytes[..])).collect();
    let names = connector.put_batch(&objects, &PutOptions::default()).unwrap();
    for server in &servers.servers {
        assert!(keys(server).len() > 500, "every server has a share");
    }
    let found = connector.get_batch(&names, &GetOptions::default()).unwrap();
    for (found, stored) in found.iter().zip(&stored) {
        assert_eq!(&found.as_ref().unwrap()[..], stored);
    }
    connector.expire(&names, Some(Duration::from_secs(1000))).unwrap();
    cmd("SET").arg("foreign").arg("x").exec(&mut servers.servers[2].connect()).unwrap();
    connector.close(true).unwrap();
    let left: Vec<_> = servers.servers.iter().flat_map(keys).collect();
    assert_eq!(left, ["foreign"]);
}

#[test]
fn keys_are_found_while_and_after_they_move() {
    needs_redis!();
    let servers = Cluster::start();
    let connector = RedisConnector::new(&servers.url()).unwrap();
    let key = connector.new_key().unwrap();
    fill(&connector, &key, b"moves");
    let name = format!("proxystore:{{{}}}", key.id());
    let slot: u16 = cluster(&servers.servers[0], &["KEYSLOT", &name]);
    let slot = slot.to_string();
    let (from, to): (Vec<_>, Vec<_>) =
        servers.servers.iter().partition(|server| keys(server).contains(&name));
    let (from, to) = (from[0], to[0]);
    let ids = [from, to].map(|server| cluster::<String>(server, &["MYID"]));
    let () = cluster(to, &["SETSLOT", &slot, "IMPORTING", &ids[0]]);
    let () = cluster(from, &["SETSLOT", &slot, "MIGRATING", &ids[1]]);
    assert_eq!(&get(&connector, &key).unwrap()[..], b"moves", "not moved yet");
    let mut migrate = cmd("MIGRATE");
    migrate.arg("127.0.0.1").arg(to.port).arg(&name).arg(0).arg(5000);
    migrate.exec(&mut from.connect()).unwrap();
    assert_eq!(&get(&connector, &key).unwrap()[..], b"moves", "asked of the other");
    let range = GetOptions { range: Some(1..3), ..GetOptions::default() };
    assert_eq!(&connector.get(&key, &range).unwrap().unwrap()[..], b"ov");
    let batch = connector.get_batch(std::slice::from_ref(&key), &GetOptions::default()).unwrap();
    assert_eq!(&batch[0].as_ref().unwrap()[..], b"moves");
    fill(&connector, &key, b"again");
    for server in [to, from] {
        let () = cluster(server, &["SETSLOT", &slot, "NODE", &ids[1]]);
    }
    assert_eq!(&get(&connector, &key).unwrap()[..], b"again", "moved for good");
    connector.evict(&key).unwrap();
    assert_eq!(keys(to), Vec::<String>::new());
}

#[test]
fn waiters_are_woken_in_a_cluster() {
    needs_redis!();
    let servers = Cluster::start();
    let connector = RedisConnector::new(&servers.url()).unwrap();
    let other = RedisConnector::open(&connector.config()).unwrap();
    let names: Vec<_> = (0..6).map(|_| connector.new_key().unwrap()).collect();
    std::thread::scope(|scope| {
        let connector = &connector;
        let waiters: Vec<_> = names
            .iter()
            .map(|key| scope.spawn(move || connector.wait(key, None).unwrap()))
            .collect();
        std::thread::sleep(Duration::from_millis(50));
        for key in &names {
            fill(&other, key, b"x");
        }
        assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap()));
    });
}

#[test]
fn a_url_of_one_server_of_a_cluster_says_what_to_write() {
    needs_redis!();
    let servers = Cluster::start();
    let url = servers.servers[0].url();
    // Some ids are on that server, and some are not.
    let error = RedisConnector::new(&url)
        .and_then(|connector| {
            (0..100).try_for_each(|_| {
                connector.put(&Parts::from(&b"x"[..]), &PutOptions::default()).map(drop)
            })
        })
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("redis+cluster://"), "{error}");
}

#[test]
fn one_server_that_answers_is_enough_to_find_the_others() {
    needs_redis!();
    let servers = Cluster::start();
    let mut gone = crate::servers::Redis::start(crate::servers::Kind::default());
    gone.kill();
    let url =
        format!("redis+cluster://127.0.0.1:{},127.0.0.1:{}", gone.port, servers.servers[1].port);
    let connector = RedisConnector::new(&url).unwrap();
    for _ in 0..20 {
        let key = put(&connector, b"x");
        assert!(connector.exists(&key).unwrap());
    }
}

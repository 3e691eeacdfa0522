//! Servers that are not there, die, hang, or take no more.

use std::thread;
use std::time::{Duration, Instant};

use proxystore::ErrorKind;
use proxystore::connectors::redis::RedisConnector;
use proxystore::connectors::{Connector, ConnectorConfig, GetOptions, PutOptions, Value};
use proxystore::payload::Parts;
use redis::cmd;

use super::{configured, get, keys, open, put, small_parts, try_put};
use crate::servers::{Kind, Redis, needs_redis};

#[test]
fn without_a_server_opening_fails_and_says_what_to_do() {
    needs_redis!();
    let mut server = Redis::start(Kind::default());
    server.kill();
    let mut config = server.config();
    config.options.insert("retries".to_owned(), Value::Int(1));
    for url in [server.url(), format!("redis+unix://{}", server.file("nothing"))] {
        let config = ConnectorConfig { url, ..config.clone() };
        let error = RedisConnector::open(&config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(error.to_string().contains("redis-server"), "{error}");
        assert!(error.to_string().contains(&config.url), "{error}");
    }
}

#[test]
fn a_store_outlives_its_server() {
    needs_redis!();
    let mut server = Redis::start(Kind::default());
    let connector = open(&server, &[("retries", Value::Int(1))]);
    let key = put(&connector, b"before");
    server.kill();
    let error = try_put(&connector, b"meanwhile").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    let error = connector.get(&key, &GetOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert_eq!(connector.exists(&key).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(connector.evict(&key).unwrap_err().kind(), ErrorKind::Io);
    let objects = [Parts::from(&b"a"[..]), Parts::from(&b"b"[..])];
    let error = connector.put_batch(&objects, &PutOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert!(server.restart());
    assert!(get(&connector, &key).is_none(), "the server has lost it");
    let key = put(&connector, b"after");
    assert_eq!(&get(&connector, &key).unwrap()[..], b"after");
}

#[test]
fn a_restart_between_two_operations_is_not_noticed() {
    needs_redis!();
    let mut server = Redis::start(Kind::default());
    let connector = open(&server, &[("retries", Value::Int(0))]);
    put(&connector, b"before");
    server.kill();
    assert!(server.restart());
    put(&connector, b"after");
    cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").exec(&mut server.connect()).unwrap();
    let objects: Vec<_> = (0..10).map(|_| Parts::from(&b"x"[..])).collect();
    connector.put_batch(&objects, &PutOptions::default()).unwrap();
    assert_eq!(keys(&server).len(), 11);
}

#[test]
fn operations_wait_for_a_server_that_is_about_to_start() {
    needs_redis!();
    let mut server = Redis::start(Kind::default());
    let connector = open(&server, &[("retries", Value::Int(100))]);
    server.kill();
    thread::scope(|scope| {
        let putting = scope.spawn(|| put(&connector, b"patient"));
        thread::sleep(Duration::from_millis(100));
        assert!(server.restart());
        let key = putting.join().unwrap();
        assert_eq!(&get(&connector, &key).unwrap()[..], b"patient");
    });
}

#[test]
fn a_server_that_hangs_is_an_error_and_not_a_hang() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    let connector = open(&server, &[("timeout", Value::Float(2.0))]);
    let patient = open(&server, &[]);
    let key = put(&connector, b"before");
    server.freeze();
    let error = connector.get(&key, &GetOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    let deadline = Some(Instant::now() + Duration::from_millis(100));
    let options = GetOptions { deadline, ..GetOptions::default() };
    assert_eq!(patient.get(&key, &options).unwrap_err().kind(), ErrorKind::Timeout);
    let options = PutOptions { deadline, ..PutOptions::default() };
    let error = patient.put(&Parts::from(&b"late"[..]), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    server.thaw();
    for connector in [&connector, &patient] {
        assert_eq!(&get(connector, &key).unwrap()[..], b"before", "no answer of another question");
    }
}

#[test]
fn a_replica_is_tried_again_and_named() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    let connector = open(&server, &[("retries", Value::Int(1))]);
    let role = |host: &str, port: &str| {
        cmd("REPLICAOF").arg(host).arg(port).exec(&mut server.connect()).unwrap();
    };
    role("127.0.0.1", "1");
    let error = try_put(&connector, b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert!(error.to_string().contains("primary"), "{error}");
    let patient = open(&server, &[("retries", Value::Int(100))]);
    thread::scope(|scope| {
        let putting = scope.spawn(|| put(&patient, b"patient"));
        thread::sleep(Duration::from_millis(100));
        role("NO", "ONE");
        let key = putting.join().unwrap();
        assert_eq!(&get(&connector, &key).unwrap()[..], b"patient");
    });
}

#[test]
fn clear_works_after_a_restart() {
    needs_redis!();
    let mut server = Redis::start(Kind::default());
    let connector = open(&server, &[]);
    put(&connector, b"before");
    server.kill();
    assert!(server.restart());
    let other = open(&server, &[("namespace", super::text(connector.namespace()))]);
    put(&other, b"after");
    connector.close(true).unwrap();
    assert_eq!(keys(&server), Vec::<String>::new());
}

#[test]
fn a_put_in_parts_that_fails_half_way_leaves_nothing() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    let connector = open(&server, &small_parts());
    // What the object would replace is not one.
    let key = connector.new_key().unwrap();
    let name = format!("proxystore:{{{}}}", key.id());
    cmd("LPUSH").arg(&name).arg("a list").exec(&mut server.connect()).unwrap();
    let error = connector.get(&key, &GetOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let options = PutOptions { key: Some(key.clone()), ..PutOptions::default() };
    let error = connector.put(&Parts::from(&[7; 100][..]), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(get(&connector, &key).is_none());
    assert_eq!(keys(&server), Vec::<String>::new());
}

#[test]
fn a_server_of_a_cluster_is_told_apart() {
    needs_redis!();
    let server = Redis::start(Kind { is_cluster: true, ..Kind::default() });
    cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(0).arg(0).exec(&mut server.connect()).unwrap();
    let config = configured(&server, &[("retries", Value::Int(0))]);
    let error = RedisConnector::open(&config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("redis+cluster://"), "{error}");
}

#[test]
fn a_database_that_is_not_there_is_named() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    let config = ConnectorConfig::new(server.url().replace("/0", "/99"));
    let error = RedisConnector::open(&config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("/99"), "{error}");
}

//! Waiting for objects that others store.

use std::thread;
use std::time::{Duration, Instant};

use proxystore::ErrorKind;
use proxystore::connectors::{Connector, Value};
use redis::cmd;

use super::{fill, open, small_parts};
use crate::process;
use crate::servers::{Kind, Redis, needs_redis};

const FILLER: &str = "redis::waiting::a_process_that_fills_a_key";

#[test]
fn a_process_that_fills_a_key() {
    let Some(argument) = process::argument() else { return };
    let (url, id) = argument.split_once(' ').unwrap();
    let connector = proxystore::connectors::redis::RedisConnector::new(url).unwrap();
    fill(&connector, &proxystore::Key::latest(id), b"from afar");
}

/// Blocks until so many connections listen.
fn await_listeners(server: &Redis, count: usize) {
    let mut control = server.connect();
    loop {
        let clients: String = cmd("CLIENT").arg("LIST").query(&mut control).unwrap();
        if clients.lines().filter(|line| line.contains(" sub=1 ")).count() == count {
            return;
        }
        thread::yield_now();
    }
}

#[test]
fn waiters_are_woken_by_another_process() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    let connector = open(&server, &[]);
    let key = connector.new_key().unwrap();
    thread::scope(|scope| {
        let waiters: Vec<_> =
            (0..5).map(|_| scope.spawn(|| connector.wait(&key, None).unwrap())).collect();
        await_listeners(&server, 5);
        let filler = process::command(FILLER, &format!("{} {}", server.url(), key.id()));
        process::finish({ filler }.spawn().unwrap());
        assert!(waiters.into_iter().all(|waiter| waiter.join().unwrap()));
    });
    await_listeners(&server, 0);
}

#[test]
fn an_object_in_parts_wakes_too() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    let connector = open(&server, &small_parts());
    let key = connector.new_key().unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| connector.wait(&key, None).unwrap());
        await_listeners(&server, 1);
        fill(&connector, &key, &[1; 100]);
        assert!(waiter.join().unwrap());
    });
}

#[test]
fn waiters_do_not_ask_again_and_again() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    let connector = open(&server, &[]);
    let key = connector.new_key().unwrap();
    let calls = |command: &str| -> usize {
        let mut info = cmd("INFO");
        let stats: String = info.arg("commandstats").query(&mut server.connect()).unwrap();
        let start = format!("cmdstat_{command}:calls=");
        let rest = stats.lines().find_map(|line| line.strip_prefix(&start));
        rest.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
    };
    thread::scope(|scope| {
        let waiter = scope.spawn(|| connector.wait(&key, None).unwrap());
        while calls("getrange") < 2 {
            thread::yield_now(); // before and after it subscribes
        }
        thread::sleep(Duration::from_secs(1));
        assert_eq!((calls("getrange"), calls("subscribe")), (2, 1));
        fill(&connector, &key, b"x");
        assert!(waiter.join().unwrap());
    });
    let soon = Some(Instant::now() + Duration::from_millis(300));
    assert!(!connector.wait(&connector.new_key().unwrap(), soon).unwrap());
}

#[test]
fn close_ends_waiters() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    let connector = open(&server, &[]);
    let key = connector.new_key().unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| connector.wait(&key, None));
        await_listeners(&server, 1);
        connector.close(false).unwrap();
        assert_eq!(waiter.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    });
}

#[test]
fn waiters_outlive_their_connection_and_their_server() {
    needs_redis!();
    let mut server = Redis::start(Kind::default());
    let connector = open(&server, &[("retries", Value::Int(100))]);
    let key = connector.new_key().unwrap();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| connector.wait(&key, None).unwrap());
        for _ in 0..3 {
            await_listeners(&server, 1);
            cmd("CLIENT")
                .arg("KILL")
                .arg("TYPE")
                .arg("pubsub")
                .exec(&mut server.connect())
                .unwrap();
        }
        await_listeners(&server, 1);
        server.kill();
        assert!(server.restart());
        await_listeners(&server, 1);
        fill(&connector, &key, b"at last");
        assert!(waiter.join().unwrap());
    });
}

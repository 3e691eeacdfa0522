//! Users and passwords: used, and not told.

use std::sync::Arc;

use proxystore::connectors::redis::RedisConnector;
use proxystore::connectors::{Connector, ConnectorConfig, Value};
use proxystore::{ErrorKind, Reference, Store};
use redis::cmd;

use super::{configured, get, open, put, shown, text, try_put};
use crate::process;
use crate::servers::{Kind, Redis, needs_redis};

const WORD: &str = "hush-hush";

fn locked() -> Redis {
    Redis::start(Kind { password: Some(WORD), ..Kind::default() })
}

/// The URL with a user and a password in it.
fn with_user(server: &Redis, user: &str) -> String {
    server.url().replace("://", &format!("://{user}@"))
}

#[test]
fn nothing_that_is_shown_or_sent_has_the_password() {
    needs_redis!();
    let server = locked();
    let url = with_user(&server, &format!("default:{WORD}"));
    let connector = RedisConnector::new(&url).unwrap();
    assert_eq!(connector.config().url, server.url());
    let other = RedisConnector::open(&server.admitted(connector.config())).unwrap();
    let key = put(&connector, b"hello");
    assert_eq!(&get(&other, &key).unwrap()[..], b"hello");
    let mut texts = vec![format!("{connector:?} {:?} {key:?}", connector.config())];

    let store = Store::open(&url).unwrap();
    assert_eq!(store.name(), server.url());
    assert!(Store::open(&url).is_ok(), "the same store, found by its name");
    let key = store.put(&"hello".to_owned()).unwrap();
    let reference = Reference::new(Arc::clone(store.config()), key);
    texts.push(String::from_utf8_lossy(&reference.encode().unwrap()).into_owned());
    texts.push(format!("{store:?} {reference:?}"));
    texts.push(shown(&store.get::<u64>(&reference.key).unwrap_err()));

    let misspelt = url.replace("/0", "/0/1");
    texts.push(shown(&RedisConnector::new(&misspelt).unwrap_err()));
    texts.push(shown(&Store::open(&misspelt).unwrap_err()));
    texts.push(shown(&Store::open(&url.replace("redis:", "reddis:")).unwrap_err()));
    let wrong = url.replace(WORD, "hush");
    let error = RedisConnector::new(&wrong).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
    texts.push(shown(&error));
    drop(server);
    texts.push(shown(&try_put(&connector, b"x").unwrap_err()));
    for text in texts {
        assert!(!text.contains("hush"), "{text}");
    }
}

#[test]
fn without_a_password_the_error_names_the_remedy() {
    needs_redis!();
    let server = locked();
    for url in [server.url(), server.url().replace("/0", "/1")] {
        let error = RedisConnector::new(&url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
        assert!(error.to_string().contains("PROXYSTORE_REDIS_PASSWORD"), "{error}");
    }
}

#[test]
fn references_carry_credentials_when_they_are_to_be_shared() {
    needs_redis!();
    let server = locked();
    let connector = open(&server, &[("share_credentials", Value::Bool(true))]);
    let config = connector.config();
    assert!(!format!("{config:?}").contains(WORD));
    let key = put(&connector, b"shared");
    let other = RedisConnector::open(&config).unwrap();
    assert_eq!(&get(&other, &key).unwrap()[..], b"shared");
    assert_eq!(other.config(), config);
}

#[test]
fn a_worker() {
    let Some(reference) = process::argument() else { return };
    let bytes: Vec<u8> = reference.split(' ').map(|byte| byte.parse().unwrap()).collect();
    let reference = Reference::decode(&bytes).unwrap();
    let store = proxystore::store::registry::get_or_open(&reference.store).unwrap();
    let text = store.get::<String>(&reference.key).unwrap().unwrap();
    assert_eq!(text.as_str(), "for workers");
}

#[test]
fn workers_take_credentials_from_their_environment() {
    needs_redis!();
    let server = locked();
    let connector = Arc::new(open(&server, &[]));
    let store = Store::builder("redis of workers", connector).build();
    let key = store.put(&"for workers".to_owned()).unwrap();
    let bytes = Reference::new(Arc::clone(store.config()), key).encode().unwrap();
    let bytes: Vec<_> = bytes.iter().map(ToString::to_string).collect();
    let mut worker = process::command("redis::credentials::a_worker", &bytes.join(" "));
    worker.env("PROXYSTORE_REDIS_PASSWORD", WORD);
    process::finish(worker.spawn().unwrap());
    worker.env("PROXYSTORE_REDIS_HOSTS", "elsewhere, 127.0.*");
    process::finish(worker.spawn().unwrap());
    worker.env("PROXYSTORE_REDIS_HOSTS", "elsewhere");
    let output = worker.spawn().unwrap().wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("PROXYSTORE_REDIS_HOSTS"), "{text}");
}

#[test]
fn a_user_needs_what_the_specification_lists() {
    needs_redis!();
    let server = Redis::start(Kind::default());
    let page = include_str!("../../../../../docs/protocol-redis.md");
    let rules = page.split("```acl\n").nth(1).unwrap().split("\n```").next().unwrap();
    let mut acl = cmd("ACL");
    acl.arg("SETUSER").arg("worker").arg("on").arg(">word");
    for rule in rules.split_whitespace() {
        acl.arg(rule);
    }
    acl.exec(&mut server.connect()).unwrap();
    let url = with_user(&server, "worker:word");
    let mut config = ConnectorConfig::new(url);
    config.options.extend(super::small_parts().map(|(name, value)| (name.to_owned(), value)));
    let connector = RedisConnector::open(&config).unwrap();
    let key = connector.new_key().unwrap();
    for bytes in [&[1; 100][..], &[2; 10]] {
        super::fill(&connector, &key, bytes);
        assert!(connector.wait(&key, None).unwrap());
        assert_eq!(&get(&connector, &key).unwrap()[..], bytes);
        connector.expire(std::slice::from_ref(&key), None).unwrap();
        connector.evict(&key).unwrap();
    }
    assert!(!connector.wait(&key, Some(std::time::Instant::now())).unwrap());
    put(&connector, b"hello");
    connector.close(true).unwrap();

    cmd("ACL").arg("SETUSER").arg("worker").arg("-set").exec(&mut server.connect()).unwrap();
    let error = try_put(&RedisConnector::open(&config).unwrap(), b"hello").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
}

#[test]
fn a_server_with_another_certificate_is_refused() {
    needs_redis!();
    let server = Redis::start(Kind { tls: true, ..Kind::default() });
    let other = Redis::start(Kind { tls: true, ..Kind::default() });
    open(&server, &[]);
    let config = configured(&server, &[("ca_file", text(&other.file("ca.pem")))]);
    let error = RedisConnector::open(&config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
    assert!(error.to_string().contains("ca_file"), "{error}");
    let config = configured(&server, &[("ca_file", text("/nowhere/ca.pem"))]);
    let error = RedisConnector::open(&config).unwrap_err();
    assert!(error.to_string().contains("/nowhere/ca.pem"), "{error}");
    let plain = ConnectorConfig { url: server.url().replace("rediss", "redis"), ..server.config() };
    let error = RedisConnector::open(&plain).unwrap_err();
    assert!(error.to_string().contains("rediss"), "{error}");
}

//! Endpoints among themselves, on loopback.

use std::time::Duration;

use bytes::Bytes;
use proxystore::ErrorKind;
use proxystore::wire::{Answer, Request};
use proxystore_endpoint::config::{Access, Config};

use crate::sites::{Identity, Site, admitting, bytes, pair};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_a_peer_are_put_found_waited_for_and_evicted() {
    let (far, near) = pair().await;
    let name = far.name("a.b", 1);
    assert_eq!(near.get(&name).await.unwrap(), None);
    assert_eq!(
        near.ask(Request::Stat { name: name.clone(), hash: false }, Bytes::new()).await.answer,
        Answer::Absent
    );

    let waiting = near.ask(Request::Wait(name.clone(), 60_000), Bytes::new());
    let putting = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        near.put(&name, Bytes::from_static(b"hello")).await;
    };
    let (waited, ()) = tokio::join!(waiting, putting);
    assert!(matches!(waited.answer, Answer::Stat(stat) if stat.size == 5));

    assert_eq!(near.get(&name).await.unwrap().unwrap(), &b"hello"[..]);
    assert_eq!(far.get(&name).await.unwrap().unwrap(), &b"hello"[..]);
    let (stat, part) = near.get_part(&name, Some(1..3)).await.unwrap().unwrap();
    assert_eq!((stat.size, &part[..]), (5, &b"el"[..]));
    assert_eq!(near.get_part(&name, Some(1..9)).await.unwrap_err().kind(), ErrorKind::Config);

    // The other direction goes over the same connection: nobody told it an address.
    let back = near.name("c", 1);
    far.put(&back, Bytes::from_static(b"back")).await;
    assert_eq!(near.get(&back).await.unwrap().unwrap(), &b"back"[..]);

    assert_eq!(near.ask(Request::Evict(name.clone()), Bytes::new()).await.answer, Answer::Done);
    assert_eq!(far.get(&name).await.unwrap(), None);
    assert_eq!(near.get(&name).await.unwrap(), None);

    let Answer::Pong(pong) = near.ask(Request::Ping(far.id), Bytes::new()).await.answer else {
        panic!("no pong")
    };
    assert_eq!(pong.path, "direct");
    let (relay, peers) = near.peers.status();
    assert!(relay.is_none());
    assert_eq!(
        (peers.len(), peers[0].state.as_str(), peers[0].path.as_str()),
        (1, "connected", "direct")
    );
    near.stop().await;
    far.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_objects_arrive_whole() {
    let (far, near) = pair().await;
    let object = bytes(50_000_001);
    let name = far.name("large", 1);
    near.put(&name, object.clone()).await;
    let got = near.get(&name).await.unwrap().unwrap();
    assert_eq!(blake3::hash(&got), blake3::hash(&object));
    let (_, part) = near.get_part(&name, Some(3_000_000..9_000_000)).await.unwrap().unwrap();
    assert!(part == object.slice(3_000_000..9_000_000));
    near.stop().await;
    far.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_on_both_sides() {
    let (a, b) = (Identity::new(), Identity::new());
    let far = Site::start(&a, &Config::default()).await;
    // This side admits the other, which does not admit it.
    let near = Site::start(&b, &admitting([(&a, Access::Full, Some(far.port()))])).await;
    let error = near.failure(Request::Evict(far.name("x", 1))).await;
    assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
    let text = error.to_string();
    let remedy = format!("proxystore endpoint trust {}", near.id);
    assert!(text.contains("does not admit us") && text.contains(&remedy), "{text}");
    assert_eq!(far.service.counters.refused_peers.get(), 1);
    // The other side does not even connect.
    let error = far.failure(Request::Evict(near.name("x", 1))).await;
    assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
    let remedy = format!("proxystore endpoint trust {}", near.id);
    assert!(error.to_string().contains(&remedy), "{error}");
    near.stop().await;
    far.stop().await;
}

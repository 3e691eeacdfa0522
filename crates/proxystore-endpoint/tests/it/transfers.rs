//! Objects between endpoints when something goes wrong in the middle, or several want the same.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proxystore::ErrorKind;
use proxystore::wire::{Answer, Request};
use proxystore_endpoint::body::Body;
use proxystore_endpoint::config::{Access, Config};
use proxystore_endpoint::peer::Bounds;

use crate::sites::{BOUNDS, Identity, Objects, Site, admitting, bytes, collect, free_port, pair};

const MB: usize = 1_000_000;

/// The whole object, so that no more of it comes than is read.
async fn slowly(near: &Site, name: &proxystore::wire::Name, len: usize) -> Body {
    let range = Some(0..len as u64);
    let request = Request::Get { name: name.clone(), range, shared: false };
    let reply = near.ask(request, Bytes::new()).await;
    assert!(matches!(reply.answer, Answer::Object { .. }), "{:?}", reply.answer);
    reply.body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_comes_back_in_the_middle_is_asked_for_the_rest() {
    let (a, b) = (Identity::new(), Identity::new());
    let mut config = admitting([(&b, Access::Full, None)]);
    config.peers.port = free_port();
    let objects = Objects::none().await;
    let far = Site::with(&a, &config, &objects, BOUNDS).await;
    let near = Site::start(&b, &admitting([(&a, Access::Full, Some(far.port()))])).await;
    let object = bytes(30 * MB);
    let name = far.name("x", 1);
    far.put(&name, object.clone()).await;
    let mut body = slowly(&near, &name, object.len()).await;
    let first = body.next().await.unwrap().unwrap();
    far.stop().await;
    let far = Site::with(&a, &config, &objects, BOUNDS).await;
    let rest = collect(body).await.unwrap();
    assert!(object.starts_with(&first) && object[first.len()..] == rest);
    assert!(far.service.counters.peer_bytes_out.get() > 0);
    near.stop().await;
    far.stop().await;
}

#[test]
fn a_peer_that_dies_in_the_middle_is_an_error_in_bounded_time() {
    let build =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let (there, here) = (build().unwrap(), build().unwrap());
    let (a, b) = (Identity::new(), Identity::new());
    let far = there.block_on(Site::start(&a, &admitting([(&b, Access::Full, None)])));
    here.block_on(async {
        let config = admitting([(&a, Access::Full, Some(far.port()))]);
        let second = Duration::from_secs(1);
        let bounds = Bounds { dial: second * 2, resume: second * 3, ..BOUNDS };
        let near = Site::with(&b, &config, &Objects::none().await, bounds).await;
        let (name, len) = (far.name("x", 1), 30 * MB);
        near.put(&name, bytes(len)).await;
        let mut body = slowly(&near, &name, len).await;
        body.next().await.unwrap().unwrap();
        there.shutdown_background(); // as if it was killed: nobody says goodbye
        let error = collect(body).await.unwrap_err();
        assert!(error.kind().is_retryable(), "{error}");
        let error = near.failure(Request::Evict(name)).await;
        assert!(error.kind().is_retryable(), "{error}");
        near.stop().await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_is_replaced_in_the_middle_is_not_mixed() {
    let (far, near) = pair().await;
    let len = 30 * MB;
    let name = far.name("x", 1);
    far.put(&name, bytes(len)).await;
    let body = slowly(&near, &name, len).await;
    far.put(&far.name("x", 2), Bytes::from(vec![0; len])).await;
    let error = collect(body).await.unwrap_err();
    assert!(error.to_string().contains("replaced"), "{error}");
    near.stop().await;
    far.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_want_the_same_object_fetch_it_once() {
    let (far, near) = pair().await;
    let near = Arc::new(near);
    let object = bytes(6 * MB);
    let name = far.name("x", 1);
    far.put(&name, object.clone()).await;
    let gets: Vec<_> = (0..20)
        .map(|_| {
            let (near, name) = (Arc::clone(&near), name.clone());
            let request = Request::Get { name, range: None, shared: false };
            async move { near.ask(request, Bytes::new()).await }
        })
        .collect();
    // All are begun before one is read to the end.
    let mut replies = Vec::new();
    let mut running: Vec<_> = gets.into_iter().map(tokio::spawn).collect();
    for get in running.drain(..) {
        replies.push(get.await.unwrap());
    }
    for reply in replies {
        assert!(collect(reply.body).await.unwrap() == object);
    }
    assert_eq!(near.service.counters.peer_bytes_in.get(), object.len() as u64);
    Arc::into_inner(near).unwrap().stop().await;
    far.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_are_kept_where_that_is_allowed() {
    let (a, b) = (Identity::new(), Identity::new());
    let far = Site::start(&a, &admitting([(&b, Access::Full, None)])).await;
    let mut config = admitting([(&a, Access::Full, Some(far.port()))]);
    config.peers.cache = 4 << 20;
    let near = Site::start(&b, &config).await;
    let sent = || far.service.counters.peer_bytes_out.get();
    let object = bytes(3 * MB);
    let name = far.name("x", 1);
    far.put(&name, object.clone()).await;
    assert!(near.get(&name).await.unwrap().unwrap() == object);
    let once = sent();
    assert_eq!(once, object.len() as u64);
    assert!(near.get(&name).await.unwrap().unwrap() == object);
    assert!(near.get(&far.name("x", 0)).await.unwrap().unwrap() == object);
    assert_eq!(sent(), once);
    // The current one is for the peer to say.
    far.put(&far.name("x", 2), Bytes::from_static(b"new")).await;
    assert_eq!(near.get(&far.name("x", 0)).await.unwrap().unwrap(), &b"new"[..]);
    // What is evicted from here is gone here.
    assert_eq!(near.ask(Request::Evict(far.name("x", 2)), Bytes::new()).await.answer, Answer::Done);
    assert_eq!(near.get(&far.name("x", 2)).await.unwrap(), None);
    near.stop().await;
    far.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_goes_through_while_it_still_comes() {
    let (far, near) = pair().await;
    let object = bytes(9 * MB);
    let (sender, body) = Body::coming(object.len() as u64);
    let sent = object.clone();
    let sending = tokio::spawn(async move {
        for piece in sent.chunks(200_000) {
            sender.send(Ok(Bytes::copy_from_slice(piece))).await.unwrap();
        }
    });
    let request = Request::Put { name: far.name("x", 1), ttl: None, shared: None };
    assert_eq!(near.ask(request, body).await.answer, Answer::Done);
    sending.await.unwrap();
    assert!(far.get(&far.name("x", 1)).await.unwrap().unwrap() == object);

    // One that breaks off is not there.
    let (sender, body) = Body::coming(object.len() as u64);
    sender.send(Ok(object.slice(..100_000))).await.unwrap();
    drop(sender);
    let request = Request::Put { name: far.name("y", 1), ttl: None, shared: None };
    let Answer::Failed(fault) = near.ask(request, body).await.answer else { panic!("it is there") };
    assert_eq!(fault.kind(), ErrorKind::Io);
    assert_eq!(far.get(&far.name("y", 1)).await.unwrap(), None);
    near.stop().await;
    far.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_outlives_its_connection() {
    let (a, b) = (Identity::new(), Identity::new());
    let mut config = admitting([(&b, Access::Full, None)]);
    config.peers.port = free_port();
    let objects = Objects::none().await;
    let far = Site::with(&a, &config, &objects, BOUNDS).await;
    let near = Site::start(&b, &admitting([(&a, Access::Full, Some(far.port()))])).await;
    let name = far.name("x", 1);
    let waiting = near.ask(Request::Wait(name.clone(), 100_000), Bytes::new());
    let meanwhile = async {
        // Connected alone does not do: who connects may not have been greeted yet.
        while objects.storage.usage().waiting == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        far.stop().await;
        let far = Site::with(&a, &config, &objects, BOUNDS).await;
        far.put(&name, Bytes::from_static(b"late")).await;
        far
    };
    let (reply, far) = tokio::join!(waiting, meanwhile);
    assert!(matches!(reply.answer, Answer::Stat(stat) if stat.size == 4), "{:?}", reply.answer);
    near.stop().await;
    far.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_may_connect_at_once() {
    let (a, b) = (Identity::new(), Identity::new());
    let (port_a, port_b) = (free_port(), free_port());
    let config = |port, other, port_other| {
        let mut config: Config = admitting([(other, Access::Full, Some(port_other))]);
        config.peers.port = port;
        config
    };
    let first = Site::start(&a, &config(port_a, &b, port_b)).await;
    let second = Site::start(&b, &config(port_b, &a, port_a)).await;
    for generation in 1..20 {
        let (there, here) = (second.name("x", generation), first.name("x", generation));
        let (put, other) = (Bytes::from_static(b"there"), Bytes::from_static(b"here"));
        tokio::join!(first.put(&there, put.clone()), second.put(&here, other.clone()));
        let (got, found) = tokio::join!(first.get(&there), second.get(&here));
        assert_eq!((got.unwrap().unwrap(), found.unwrap().unwrap()), (put, other));
    }
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_wait_puts_get_through() {
    let (far, near) = pair().await;
    let (name, near) = (far.name("x", 1), Arc::new(near));
    let waits: Vec<_> = (0..1100)
        .map(|_| {
            let (near, request) = (Arc::clone(&near), Request::Wait(name.clone(), 60_000));
            tokio::spawn(async move { near.ask(request, Bytes::new()).await.answer })
        })
        .collect();
    while far.service.storage.usage().waiting < 768 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await; // as many as may ask more than that
    near.put(&name, Bytes::from_static(b"here")).await;
    for wait in waits {
        let answer = wait.await.unwrap();
        assert!(matches!(answer, Answer::Stat(stat) if stat.size == 4), "{answer:?}");
    }
    Arc::into_inner(near).unwrap().stop().await;
    far.stop().await;
}

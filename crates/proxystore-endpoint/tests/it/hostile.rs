//! Peers that were admitted and misbehave: they hurt nobody but themselves.

use std::time::Duration;

use bytes::Bytes;
use iroh::endpoint::{Connection, PortmapperConfig, presets};
use iroh::{Endpoint, EndpointAddr, PublicKey, RelayMode};
use proxystore::ErrorKind;
use proxystore::wire::{Answer, EndpointId, Name, Request, Stat, encode_answer, encode_request};
use proxystore_endpoint::body::Body;
use proxystore_endpoint::config::{Access, Config};
use proxystore_endpoint::frames::{Incoming, send_reply, send_request};
use proxystore_endpoint::peer::Bounds;
use proxystore_endpoint::service::Reply;

use crate::sites::{BOUNDS, Identity, Objects, Site, admitting, bytes};

const PATIENCE: Duration = Duration::from_secs(20);
const ALPN: &[u8] = b"proxystore/1";

async fn raw(identity: &Identity) -> Endpoint {
    Endpoint::builder(presets::Minimal)
        .secret_key(identity.secret())
        .alpns(vec![ALPN.to_vec()])
        .relay_mode(RelayMode::Disabled)
        .portmapper_config(PortmapperConfig::Disabled)
        .bind()
        .await
        .unwrap()
}

/// Connects to a site and greets it.
async fn connect(endpoint: &Endpoint, site: &Site) -> Connection {
    let id = PublicKey::from_bytes(site.id.as_bytes()).unwrap();
    let address = EndpointAddr::new(id).with_ip_addr(([127, 0, 0, 1], site.port()).into());
    let connection = endpoint.connect(address, ALPN).await.unwrap();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&[0; 32]).await.unwrap();
    send.finish().unwrap();
    receive.read_exact(&mut [0; 32]).await.unwrap();
    connection
}

async fn ask(connection: &Connection, request: Request) -> Answer {
    let (mut send, receive) = connection.open_bi().await.unwrap();
    send_request(&mut send, 1, &request, Body::empty(), PATIENCE).await.unwrap();
    send.finish().unwrap();
    Incoming::new(receive, PATIENCE).answer().await.unwrap().unwrap().1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_and_thousands_of_streams_are_borne() {
    let (a, b, c) = (Identity::new(), Identity::new(), Identity::new());
    let config = admitting([(&b, Access::Full, None), (&c, Access::Full, None)]);
    let site = Site::start(&a, &config).await;
    let good = Site::start(&b, &admitting([(&a, Access::Full, Some(site.port()))])).await;
    let name = site.name("x", 1);
    good.put(&name, Bytes::from_static(b"kept")).await;

    let endpoint = raw(&c).await;
    let bad = connect(&endpoint, &site).await;
    for garbage in [vec![0; 16], vec![0xff; 5000], b"GET / HTTP/1.1\r\n\r\n".to_vec()] {
        let (mut send, mut receive) = bad.open_bi().await.unwrap();
        send.write_all(&garbage).await.unwrap();
        let _ = send.finish(); // it may have been stopped already
        let _ = receive.read_to_end(100_000).await; // an error, or nothing: no answer is due
    }
    let request = Request::Get { name: name.clone(), range: None, shared: false };
    assert!(matches!(ask(&bad, request).await, Answer::Object { .. }));

    let mut held = Vec::new();
    let flood = async {
        for _ in 0..10_000 {
            let (mut send, receive) = bad.open_bi().await.unwrap();
            send.write_all(&[2]).await.unwrap(); // a request begins so, and goes on never
            held.push((send, receive));
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(3), flood).await.is_err(),
        "there is no bound"
    );
    assert!(held.len() <= 1100);
    assert_eq!(good.get(&name).await.unwrap().unwrap(), &b"kept"[..]);
    endpoint.close().await;
    good.stop().await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_requests_with_long_answers_do_not_wait_for_each_other() {
    let (a, b, c) = (Identity::new(), Identity::new(), Identity::new());
    let config = admitting([(&b, Access::Full, None), (&c, Access::Full, None)]);
    let site = Site::start(&a, &config).await;
    let short = Bounds { patience: BOUNDS.patience / 2, ..BOUNDS };
    let config = admitting([(&a, Access::Full, Some(site.port()))]);
    let good = Site::with(&c, &config, &Objects::none().await, short).await;
    let name = site.name("x", 1);
    site.put(&name, bytes(3_000_000)).await;
    let endpoint = raw(&b).await;
    let peer = connect(&endpoint, &site).await;
    let request = Request::Get { name: name.clone(), range: None, shared: false };
    let mut asked = Vec::new();
    // Nobody reads the answers yet: those that are begun stay on their way.
    for _ in 0..300 {
        let (mut send, receive) = peer.open_bi().await.unwrap();
        let mut out = Vec::new();
        encode_request(&mut out, 1, &request, 100_000, false).unwrap();
        send.write_all(&out).await.unwrap();
        asked.push((send, receive));
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    // They take no place from others.
    assert!(good.get(&name).await.unwrap().is_some());
    for (_send, receive) in asked {
        let mut incoming = Incoming::new(receive, PATIENCE);
        let answer = tokio::time::timeout(PATIENCE, incoming.answer()).await;
        match answer.expect("it hangs").unwrap().unwrap().1 {
            Answer::Object { .. } => {}
            Answer::Failed(fault) => assert_eq!(fault.kind(), ErrorKind::Full),
            other => panic!("{other:?}"),
        }
    }
    endpoint.close().await;
    good.stop().await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_asks_for_the_objects_of_this_endpoint_only() {
    let (a, b) = (Identity::new(), Identity::new());
    let site = Site::start(&a, &admitting([(&b, Access::Full, None)])).await;
    let endpoint = raw(&b).await;
    let peer = connect(&endpoint, &site).await;
    let elsewhere = Name { endpoint: EndpointId::from_bytes([7; 32]), ..site.name("x", 1) };
    let requests = [Request::Evict(elsewhere), Request::Status, Request::Stop, Request::Reload];
    for request in requests {
        let Answer::Failed(fault) = ask(&peer, request).await else { panic!("it was answered") };
        assert_eq!(fault.kind(), ErrorKind::Permission);
    }
    assert!(!site.service.stop.is_cancelled());
    endpoint.close().await;
    site.stop().await;
}

/// Whoever connects is greeted.
async fn accept(endpoint: &Endpoint) -> Connection {
    let connection = endpoint.accept().await.unwrap().await.unwrap();
    let (mut send, mut receive) = connection.accept_bi().await.unwrap();
    receive.read_exact(&mut [0; 32]).await.unwrap();
    send.write_all(&[0; 32]).await.unwrap();
    send.finish().unwrap();
    connection
}

/// A peer that says one hash and sends bytes of another.
async fn liar(endpoint: Endpoint, object: Bytes) {
    let connection = accept(&endpoint).await;
    while let Ok((mut send, receive)) = connection.accept_bi().await {
        let (frame, request) = Incoming::new(receive, PATIENCE).request().await.unwrap().unwrap();
        let Ok(Request::Get { range: Some(range), .. }) = request else { panic!("{request:?}") };
        let stat = Stat { generation: 1, size: object.len() as u64, hash: Some([1; 32]) };
        let part = object.slice(range.start as usize..object.len().min(range.end as usize));
        let answer = Answer::Object { stat, shared: None };
        let reply = Reply { answer, body: part.into() };
        send_reply(&mut send, frame.number, reply, PATIENCE).await.unwrap();
        send.finish().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_what_the_peer_has_is_not_given_whole() {
    for len in [100_000, 5_000_000] {
        let (a, b) = (Identity::new(), Identity::new());
        let endpoint = raw(&a).await;
        let port = endpoint.bound_sockets().iter().find(|a| a.is_ipv4()).unwrap().port();
        let lying = tokio::spawn(liar(endpoint, bytes(len)));
        let mut config = admitting([(&a, Access::Full, Some(port))]);
        config.peers.cache = 10_000_000;
        let near = Site::start(&b, &config).await;
        let name = Name { endpoint: a.id(), id: "x".into(), generation: 1 };
        for _ in 0..2 {
            let error = near.get(&name).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        }
        near.stop().await;
        lying.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_part_may_be_lost_later_than_lost_peers_are_waited_for() {
    let (a, b) = (Identity::new(), Identity::new());
    let endpoint = raw(&a).await;
    let port = endpoint.bound_sockets().iter().find(|a| a.is_ipv4()).unwrap().port();
    let object = bytes(600_000);
    let bounds = Bounds { resume: Duration::from_millis(500), ..BOUNDS };
    let config = admitting([(&a, Access::Full, Some(port))]);
    let near = Site::with(&b, &config, &Objects::none().await, bounds).await;
    let name = Name { endpoint: a.id(), id: "x".into(), generation: 1 };
    let sent_slowly = object.clone();
    let slow = tokio::spawn(async move {
        let (object, mut sent) = (sent_slowly, 0);
        for next in [300_000, 600_000] {
            let connection = accept(&endpoint).await;
            let (mut send, receive) = connection.accept_bi().await.unwrap();
            let asked = Incoming::new(receive, PATIENCE).request().await.unwrap().unwrap();
            let Ok(Request::Get { range: Some(range), .. }) = asked.1 else { panic!("{asked:?}") };
            assert!(range.start <= sent, "what arrived is asked for again");
            let part = object.slice(range.start as usize..object.len());
            let hash = Some(*blake3::hash(&object).as_bytes());
            let stat = Stat { generation: 1, size: object.len() as u64, hash };
            let mut out = Vec::new();
            let answer = Answer::Object { stat, shared: None };
            encode_answer(&mut out, asked.0.number, &answer, part.len() as u64, false).unwrap();
            out.extend_from_slice(&part[..next - range.start as usize]);
            send.write_all(&out).await.unwrap();
            sent = next as u64;
            tokio::time::sleep(bounds.resume * 3).await;
            connection.close(9u32.into(), b"lost");
        }
        endpoint
    });
    assert!(near.get(&name).await.unwrap().unwrap() == object);
    drop(slow.await.unwrap());
    near.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_knows_no_namespace_clears_nothing() {
    let (a, b) = (Identity::new(), Identity::new());
    let site = Site::start(&a, &admitting([(&b, Access::Full, None)])).await;
    let name = site.name("random.x", 1);
    site.put(&name, Bytes::from_static(b"kept")).await;
    let endpoint = raw(&b).await;
    let peer = connect(&endpoint, &site).await;
    let clear = |prefix: &str| Request::Clear { endpoint: site.id, prefix: prefix.into() };
    for prefix in ["r", "random", "."] {
        assert!(matches!(ask(&peer, clear(prefix)).await, Answer::Failed(_)), "{prefix}");
    }
    assert_eq!(site.get(&name).await.unwrap().unwrap(), &b"kept"[..]);
    assert_eq!(ask(&peer, clear("random.")).await, Answer::Done);
    assert_eq!(site.get(&name).await.unwrap(), None);
    endpoint.close().await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_not_said_who_it_is_has_one_stream() {
    let site = Site::start(&Identity::new(), &Config::default()).await;
    let endpoint = raw(&Identity::new()).await;
    let id = PublicKey::from_bytes(site.id.as_bytes()).unwrap();
    let address = EndpointAddr::new(id).with_ip_addr(([127, 0, 0, 1], site.port()).into());
    let connection = endpoint.connect(address, ALPN).await.unwrap();
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    // One byte less than what is said: nobody decides yet.
    send.write_all(&[0; 31]).await.unwrap();
    let second = tokio::time::timeout(Duration::from_secs(1), connection.open_bi()).await;
    assert!(second.is_err());
    endpoint.close().await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_were_replaced_end() {
    let (a, b) = (Identity::new(), Identity::new());
    let bounds = Bounds { idle: Duration::from_secs(2), ..BOUNDS };
    let config = admitting([(&b, Access::Full, None)]);
    let site = Site::with(&a, &config, &Objects::none().await, bounds).await;
    let endpoint = raw(&b).await;
    let mut connections = Vec::new();
    for _ in 0..6 {
        connections.push(connect(&endpoint, &site).await);
    }
    // There are too many; later on nobody uses any of them.
    for connection in connections {
        tokio::time::timeout(PATIENCE, connection.closed()).await.expect("it is open still");
    }
    endpoint.close().await;
    site.stop().await;
}

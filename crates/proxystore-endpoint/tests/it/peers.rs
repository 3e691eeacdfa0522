//! Endpoints among themselves, on loopback.

use std::time::Duration;

use bytes::Bytes;
use proxystore::ErrorKind;
use proxystore::wire::{Answer, Name, Request};
use proxystore_endpoint::config::{self, Access, Config};
use proxystore_endpoint::peer::Peers;

use crate::sites::{BOUNDS, Identity, Site, admitting, bytes, free_port, pair};

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
    let remedy = format!("proxystore endpoint trust NAME {}", near.id);
    assert!(text.contains("does not admit us") && text.contains(&remedy), "{text}");
    assert_eq!(far.service.counters.refused_peers.get(), 1);
    // The other side does not even connect.
    let error = far.failure(Request::Evict(near.name("x", 1))).await;
    assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
    let remedy = format!("proxystore endpoint trust NAME {}", near.id);
    assert!(error.to_string().contains(&remedy), "{error}");
    near.stop().await;
    far.stop().await;
}

fn of_group(secret: &str) -> Config {
    let mut config = Config::default();
    config.peers.group_secret = secret.into();
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_know_the_secret_are_a_group() {
    let secret = "nobody guesses this one";
    let (a, b) = (Identity::new(), Identity::new());
    let far = Site::start(&a, &of_group(secret)).await;
    let reaching = |secret| {
        let mut config = of_group(secret);
        config.peers.allow = admitting([(&a, Access::Full, Some(far.port()))]).peers.allow;
        config
    };
    let near = Site::start(&b, &reaching(secret)).await;
    near.put(&far.name("x", 1), Bytes::from_static(b"ours")).await;
    assert_eq!(far.get(&far.name("x", 1)).await.unwrap().unwrap(), &b"ours"[..]);
    // Who was connected to admits who connected by its proof alone, and asks back over that connection.
    near.put(&near.name("y", 1), Bytes::from_static(b"theirs")).await;
    assert_eq!(far.get(&near.name("y", 1)).await.unwrap().unwrap(), &b"theirs"[..]);
    near.stop().await;

    for wrong in ["somebody guesses that", ""] {
        let other = Site::start(&Identity::new(), &reaching(wrong)).await;
        let error = other.failure(Request::Evict(far.name("x", 1))).await;
        assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
        assert!(error.to_string().contains("group_secret"), "{error}");
        other.stop().await;
    }
    assert_eq!(far.get(&far.name("x", 1)).await.unwrap().unwrap(), &b"ours"[..]);
    far.stop().await;

    let counters = std::sync::Arc::default();
    let short = Peers::start(a.secret(), &of_group("short"), counters, BOUNDS).await;
    assert_eq!(short.unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test]
async fn who_wants_no_direct_path_needs_a_relay() {
    let mut config = Config::default();
    config.peers.direct = false;
    let counters = std::sync::Arc::default();
    let nowhere = Peers::start(Identity::new().secret(), &config, counters, BOUNDS).await;
    let error = nowhere.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("`direct = true`"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_only_read_does_not_write() {
    let (a, b) = (Identity::new(), Identity::new());
    let far = Site::start(&a, &admitting([(&b, Access::Read, None)])).await;
    let near = Site::start(&b, &admitting([(&a, Access::Full, Some(far.port()))])).await;
    let name = far.name("x", 1);
    far.put(&name, Bytes::from_static(b"read me")).await;
    assert_eq!(near.get(&name).await.unwrap().unwrap(), &b"read me"[..]);
    let waited = near.ask(Request::Wait(name.clone(), 1000), Bytes::new()).await;
    assert!(matches!(waited.answer, Answer::Stat(_)));
    let put = Request::Put { name: far.name("y", 1), ttl: None, shared: None };
    let clear = Request::Clear { endpoint: far.id, prefix: "x.".into() };
    for request in
        [put, Request::Evict(name.clone()), Request::Expire(name.clone(), Some(1)), clear]
    {
        let error = near.failure(request).await;
        assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
    }
    // A long one is refused before all of it was sent, and the connection is of use still.
    let (request, object) = (
        Request::Put { name: far.name("y", 1), ttl: None, shared: None },
        Bytes::from(vec![0; 20_000_000]),
    );
    let Answer::Failed(fault) = near.ask(request, object).await.answer else { panic!("it may") };
    assert_eq!(fault.kind(), ErrorKind::Permission);
    assert_eq!(near.get(&name).await.unwrap().unwrap(), &b"read me"[..]);
    near.stop().await;
    far.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_a_peer_may_change_while_endpoints_run() {
    let (a, b) = (Identity::new(), Identity::new());
    let far = Site::start(&a, &Config::default()).await;
    let near = Site::start(&b, &Config::default()).await;
    let (name, back) = (far.name("x", 1), near.name("y", 1));
    far.put(&name, Bytes::from_static(b"read me")).await;
    near.put(&back, Bytes::from_static(b"me too")).await;
    assert_eq!(near.get(&name).await.unwrap_err().kind(), ErrorKind::Permission);

    let there = admitting([(&a, Access::Full, Some(far.port()))]);
    assert_eq!(near.reload(&there).await.answer, Answer::Done);
    assert_eq!(near.get(&name).await.unwrap_err().kind(), ErrorKind::Permission);
    assert_eq!(far.reload(&admitting([(&b, Access::Read, None)])).await.answer, Answer::Done);
    assert_eq!(near.get(&name).await.unwrap().unwrap(), &b"read me"[..]);
    let evict = || Request::Evict(name.clone());
    assert_eq!(near.failure(evict()).await.kind(), ErrorKind::Permission);

    // What makes no sense changes nothing.
    let Answer::Failed(_) = far.reload(&of_group("short")).await.answer else { panic!("taken") };
    assert_eq!(near.get(&name).await.unwrap().unwrap(), &b"read me"[..]);

    assert_eq!(far.reload(&admitting([(&b, Access::Full, None)])).await.answer, Answer::Done);
    assert_eq!(near.ask(evict(), Bytes::new()).await.answer, Answer::Done);

    // A peer that waits is cut off as well, and asks in vain for what it may not have any more.
    let waiting = near.ask(Request::Wait(far.name("z", 1), 60_000), Bytes::new());
    let removing = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        far.reload(&Config::default()).await
    };
    let (waited, removed) = tokio::join!(waiting, removing);
    assert_eq!(removed.answer, Answer::Done);
    let Answer::Failed(fault) = waited.answer else { panic!("it waited on") };
    assert_eq!(fault.kind(), ErrorKind::Permission);
    assert_eq!(near.get(&name).await.unwrap_err().kind(), ErrorKind::Permission);
    assert_eq!(far.get(&back).await.unwrap_err().kind(), ErrorKind::Permission);

    // Who was on the list and knows the secret is a peer still.
    let secret = "nobody guesses this one";
    let both =
        Config { peers: config::Peers { group_secret: secret.into(), ..there.peers }, ..there };
    assert_eq!(near.reload(&both).await.answer, Answer::Done);
    assert_eq!(far.reload(&of_group(secret)).await.answer, Answer::Done);
    assert_eq!(near.get(&far.name("none", 1)).await.unwrap(), None);
    assert_eq!(far.get(&back).await.unwrap().unwrap(), &b"me too"[..]);
    assert_eq!(far.reload(&of_group("somebody guesses that")).await.answer, Answer::Done);
    assert_eq!(near.get(&far.name("none", 1)).await.unwrap_err().kind(), ErrorKind::Permission);
    near.stop().await;
    far.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_not_there_is_an_error_that_says_what_was_tried() {
    let (a, b) = (Identity::new(), Identity::new());
    let port = free_port();
    let config =
        admitting([(&a, Access::Full, Some(port)), (&Identity::new(), Access::Full, None)]);
    let near = Site::start(&b, &config).await;
    let gone = Name { endpoint: a.id(), id: "x".into(), generation: 1 };
    let error = near.failure(Request::Evict(gone)).await;
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
    let nowhere = config.peers.allow[1].id.parse().unwrap();
    let error = near.failure(Request::Ping(nowhere)).await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("[relay]"), "{error}");
    near.stop().await;
}

/// A relay within this process, with a certificate that nobody signed.
async fn relay() -> (iroh_relay::server::Server, Config) {
    use iroh_relay::server::{
        CertConfig, QuicConfig, RelayConfig, Server, ServerConfig, TlsConfig,
    };
    use std::net::Ipv4Addr;
    let signed = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    let certificate = signed.cert.der().clone();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
    let provider = rustls::crypto::ring::default_provider();
    let tls = rustls::ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())
        .unwrap();
    let here = (Ipv4Addr::LOCALHOST, 0);
    let mut relay = RelayConfig::new(here);
    relay.tls = Some(TlsConfig::new(here, CertConfig::Manual { server_config: tls }));
    let mut server = ServerConfig::default();
    server.relay = Some(relay);
    server.quic = Some(QuicConfig::new(here));
    let server = Server::spawn(server).await.unwrap();
    let mut config = Config::default();
    config.relay.url = format!("https://{}", server.https_addr().unwrap());
    config.relay.udp_port = server.quic_addr().unwrap().port();
    let pin = ring::digest::digest(&ring::digest::SHA256, &certificate);
    config.relay.fingerprint = data_encoding::HEXLOWER.encode(pin.as_ref());
    (server, config)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_meet_at_a_relay_that_is_known_by_its_certificate() {
    let (relay, common) = relay().await;
    let (a, b) = (Identity::new(), Identity::new());
    let config = |other| {
        let mut config = common.clone();
        config.peers.allow = admitting([(other, Access::Full, None)]).peers.allow;
        config
    };
    let far = Site::start(&a, &config(&b)).await;
    let near = Site::start(&b, &config(&a)).await;
    let connected = |site: &Site| site.peers.status().0.is_some_and(|relay| relay.connected);
    for _ in 0..600 {
        if connected(&far) && connected(&near) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let object = bytes(3_000_000);
    // A hint that leads nowhere does not keep them apart.
    let hint = Request::Hint(far.id, "https://127.0.0.1:1".into());
    assert_eq!(near.ask(hint, Bytes::new()).await.answer, Answer::Done);
    near.put(&far.name("x", 1), object.clone()).await;
    assert!(near.get(&far.name("x", 1)).await.unwrap().unwrap() == object);
    near.stop().await;

    // One side that wants no direct path is enough; it may be had where nothing else is known of the other.
    let mut relayed = config(&a);
    relayed.peers.direct = false;
    let near = Site::start(&b, &relayed).await;
    near.put(&far.name("y", 1), object.clone()).await;
    tokio::time::sleep(Duration::from_millis(500)).await; // time enough to find a direct one here
    assert!(near.get(&far.name("y", 1)).await.unwrap().unwrap() == object);
    assert_eq!(near.peers.status().1[0].path, "relayed");
    near.stop().await;

    // With another fingerprint the relay is not believed.
    let mut doubting = config(&a);
    doubting.relay.fingerprint = "ab".repeat(32);
    let doubting = Site::start(&b, &doubting).await;
    let error = doubting.failure(Request::Evict(far.name("x", 1))).await;
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("relay"), "{error}");
    let status = doubting.peers.status().0.unwrap();
    assert!(!status.connected && status.problem.is_some(), "{status:?}");
    doubting.stop().await;
    far.stop().await;
    relay.shutdown().await.unwrap();
}

//! A relay, and endpoints that meet there.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use iroh::endpoint::{Connection, PortmapperConfig, presets};
use iroh::{
    Endpoint, EndpointAddr, RelayConfig, RelayMap, RelayMode, SecretKey, TransportAddr, Watcher,
};
use proxystore::ErrorKind;
use proxystore::wire::EndpointId;
use proxystore_endpoint::config;
use proxystore_endpoint::relay::{self, Access, Config, RelayInfo, pin};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

const ALPN: &[u8] = b"relay-test";
const TOKEN: &str = "of-the-tests";
/// A bound against hanging, long enough for any machine.
const LONG: Duration = Duration::from_mins(1);

/// A relay that runs until it is stopped.
struct Running {
    info: RelayInfo,
    stop: CancellationToken,
    task: JoinHandle<proxystore::Result<()>>,
}

impl Running {
    async fn start(config: Config) -> Self {
        Self::try_start(config).await.expect("it runs")
    }

    async fn try_start(config: Config) -> proxystore::Result<Self> {
        let stop = CancellationToken::new();
        let (tell, told) = tokio::sync::oneshot::channel();
        let run = relay::run(config, stop.clone(), |info| {
            tell.send(info.clone()).expect("the test waits");
        });
        let task = tokio::spawn(run);
        match tokio::time::timeout(LONG, told).await.expect("it starts, or not") {
            Ok(info) => Ok(Self { info, stop, task }),
            Err(_) => Err(task.await.expect("no panic").expect_err("it did not run")),
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(LONG, self.task)
            .await
            .expect("it stops")
            .expect("no panic")
            .expect("no error");
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.info.tcp.port())
    }
}

/// A relay for tests: on the loopback, any port, no UDP.
fn config(directory: &Path) -> Config {
    let mut config = Config {
        directory: directory.to_owned(),
        host: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: 0,
        udp_port: 0,
        web: String::new(),
        ..Config::default()
    };
    config.access.tokens = vec![TOKEN.into()];
    config
}

async fn connect(relay: &Running) -> TcpStream {
    TcpStream::connect(relay.info.tcp).await.expect("a connection")
}

/// The body of what the page answers.
async fn get(address: &str, path: &str, host: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("asked");
    let mut answer = String::new();
    let read = tokio::time::timeout(LONG, stream.read_to_string(&mut answer));
    read.await.expect("it answers").expect("text");
    answer.split_once("\r\n\r\n").expect("a head").1.to_owned()
}

/// An endpoint that has no other way than the relay.
async fn endpoint(url: &str, fingerprint: &str, token: Option<&str>) -> Endpoint {
    builder(url, fingerprint, token).bind().await.expect("an endpoint")
}

fn builder(url: &str, fingerprint: &str, token: Option<&str>) -> iroh::endpoint::Builder {
    let checked = config::Relay {
        url: url.into(),
        fingerprint: fingerprint.into(),
        ..config::Relay::default()
    };
    let mut relay = RelayConfig::new(url.parse().expect("a URL"), None);
    if let Some(token) = token {
        relay = relay.with_auth_token(token);
    }
    Endpoint::builder(presets::Minimal)
        .alpns(vec![ALPN.to_vec()])
        .relay_mode(RelayMode::Custom(RelayMap::from_iter([relay])))
        .ca_tls_config(pin::checks(&checked).expect("a fingerprint"))
        .portmapper_config(PortmapperConfig::Disabled)
        .clear_ip_transports()
}

async fn online(endpoint: &Endpoint) {
    tokio::time::timeout(LONG, endpoint.online()).await.expect("it reaches the relay");
}

/// Connects two endpoints by a relay.
async fn meet(url: &str, from: &Endpoint, to: &Endpoint) -> (Connection, Connection) {
    let address =
        EndpointAddr::from_parts(to.id(), [TransportAddr::Relay(url.parse().expect("a URL"))]);
    let (one, other) = tokio::time::timeout(LONG, async {
        tokio::join!(from.connect(address, ALPN), async {
            to.accept().await.expect("a connection").await
        })
    })
    .await
    .expect("they meet");
    (one.expect("connected"), other.expect("accepted"))
}

/// Sends `size` bytes from one to the other, and has them counted there.
async fn exchange(one: &Connection, other: &Connection, size: usize) {
    let data = vec![7u8; size];
    let (sent, received) = tokio::time::timeout(LONG, async {
        tokio::join!(
            async {
                let mut stream = one.open_uni().await.expect("a stream");
                stream.write_all(&data).await.expect("sent");
                stream.finish().expect("finished");
                stream.stopped().await
            },
            async {
                let mut stream = other.accept_uni().await.expect("a stream");
                stream.read_to_end(size).await.expect("received")
            }
        )
    })
    .await
    .expect("it arrives");
    sent.expect("acknowledged");
    assert_eq!(received, data);
}

/// Why the relay does not admit an endpoint.
async fn refusal(endpoint: &Endpoint) -> String {
    let mut status = endpoint.home_relay_status();
    tokio::time::timeout(LONG, async {
        loop {
            let now = status.get();
            if let Some(reason) = now.iter().find_map(|status| status.auth_denied_reason()) {
                return reason.to_string();
            }
            status.updated().await.expect("the endpoint lives");
        }
    })
    .await
    .expect("it is refused")
}

#[tokio::test]
async fn endpoints_exchange_bytes_through_it() {
    let home = tempfile::tempdir().expect("a directory");
    let relay = Running::start(config(home.path())).await;
    let (url, fingerprint) = (relay.url(), relay.info.fingerprint.clone());
    let one = endpoint(&url, &fingerprint, Some(TOKEN)).await;
    let two = endpoint(&url, &fingerprint, Some(TOKEN)).await;
    online(&one).await;
    online(&two).await;
    let (here, there) = meet(&url, &one, &two).await;
    exchange(&here, &there, 1 << 20).await;
    one.close().await;
    two.close().await;
    relay.stop().await;
}

#[tokio::test]
async fn an_endpoint_that_is_listed_needs_no_token() {
    let home = tempfile::tempdir().expect("a directory");
    let listed = SecretKey::generate();
    let id = EndpointId::from_bytes(*listed.public().as_bytes());
    let mut config = config(home.path());
    config.access = Access { allow: vec![id.to_string()], ..Access::default() };
    let relay = Running::start(config).await;
    let (url, fingerprint) = (relay.url(), relay.info.fingerprint.clone());
    let known =
        builder(&url, &fingerprint, None).secret_key(listed).bind().await.expect("an endpoint");
    online(&known).await;
    let unknown = endpoint(&url, &fingerprint, None).await;
    let reason = refusal(&unknown).await;
    assert!(reason.contains("does not know the endpoint"), "{reason}");
    let id = EndpointId::from_bytes(*unknown.id().as_bytes()).to_string();
    assert!(reason.contains(&id), "{reason}");
    known.close().await;
    unknown.close().await;
    relay.stop().await;
}

#[tokio::test]
async fn endpoints_come_back_after_a_restart() {
    let home = tempfile::tempdir().expect("a directory");
    let relay = Running::start(config(home.path())).await;
    let (url, first) = (relay.url(), relay.info.clone());
    let one = endpoint(&url, &first.fingerprint, Some(TOKEN)).await;
    let two = endpoint(&url, &first.fingerprint, Some(TOKEN)).await;
    online(&one).await;
    online(&two).await;
    relay.stop().await;
    let relay = Running::start(Config { port: first.tcp.port(), ..config(home.path()) }).await;
    assert_eq!(relay.info.fingerprint, first.fingerprint);
    let (here, there) = meet(&url, &one, &two).await;
    exchange(&here, &there, 1000).await;
    one.close().await;
    two.close().await;
    relay.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let home = tempfile::tempdir().expect("a directory");
    let relay = Running::start(config(home.path())).await;
    let port = relay.info.tcp.port();
    let second = Config { port, ..config(home.path()) };
    let error = relay::run(second, CancellationToken::new(), |_| panic!("it runs"))
        .await
        .expect_err("in use");
    let text = error.to_string();
    assert!(text.contains(&port.to_string()) && text.contains("choose another `port`"), "{text}");
    relay.stop().await;
}

#[tokio::test]
async fn another_certificate_than_the_pinned_one_is_not_believed() {
    let home = tempfile::tempdir().expect("a directory");
    let relay = Running::start(config(home.path())).await;
    let shown = pin::trusted(&relay.url(), &relay.info.fingerprint).await.expect("the same");
    assert_eq!(pin::fingerprint_of(&shown), relay.info.fingerprint);
    let other = "ab".repeat(32);
    let error = pin::trusted(&relay.url(), &other).await.expect_err("another");
    assert_eq!(error.kind(), ErrorKind::Untrusted);
    let text = error.to_string();
    assert!(text.contains(&other) && text.contains(&relay.info.fingerprint), "{text}");
    relay.stop().await;
}

#[tokio::test]
async fn page_and_metrics_tell_who_is_there_and_who_was_refused() {
    let home = tempfile::tempdir().expect("a directory");
    let relay = Running::start(Config { web: "127.0.0.1:0".into(), ..config(home.path()) }).await;
    let web = relay.info.web.expect("a page").to_string();
    let (url, fingerprint) = (relay.url(), relay.info.fingerprint.clone());
    let one = endpoint(&url, &fingerprint, Some(TOKEN)).await;
    let two = endpoint(&url, &fingerprint, Some(TOKEN)).await;
    let wrong = endpoint(&url, &fingerprint, Some("another")).await;
    online(&one).await;
    online(&two).await;
    refusal(&wrong).await;
    let (here, there) = meet(&url, &one, &two).await;
    exchange(&here, &there, 100_000).await;

    let status: serde_json::Value =
        serde_json::from_str(&get(&web, "/status.json", &web).await).expect("JSON");
    let ids: Vec<_> = status["clients"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|client| client["id"].as_str().expect("an id").to_owned())
        .collect();
    for endpoint in [&one, &two] {
        let id = EndpointId::from_bytes(*endpoint.id().as_bytes()).to_string();
        assert!(ids.contains(&id), "{status}");
    }
    assert!(status["bytes_received"].as_u64().expect("a number") >= 100_000, "{status}");
    assert_eq!(status["fingerprint"], fingerprint.as_str());
    let refused = EndpointId::from_bytes(*wrong.id().as_bytes()).to_string();
    assert_eq!(status["refusals"][0]["id"], refused.as_str());
    assert!(!status.to_string().contains(TOKEN), "{status}");

    let metrics = get(&web, "/metrics", &web).await;
    assert!(metrics.contains("\nproxystore_relay_clients 2\n"), "{metrics}");
    assert_eq!(get(&web, "/health", &web).await, "ok\n");
    let page = get(&web, "/", &web).await;
    assert!(page.contains("never what") && !page.contains("<style"), "{page}");
    for file in ["/base.css", "/page.css", "/page.js"] {
        assert!(page.contains(file) && !get(&web, file, &web).await.is_empty(), "{file}");
    }
    let elsewhere = get(&web, "/status.json", "evil.example").await;
    assert!(!elsewhere.contains("clients"), "{elsewhere}");
    for endpoint in [one, two, wrong] {
        endpoint.close().await;
    }
    relay.stop().await;
}

#[tokio::test]
async fn a_limited_client_is_slowed_and_still_served() {
    let home = tempfile::tempdir().expect("a directory");
    let mut config = Config { web: "127.0.0.1:0".into(), ..config(home.path()) };
    config.limits.rate = 1_000_000;
    let relay = Running::start(config).await;
    let web = relay.info.web.expect("a page").to_string();
    let (url, fingerprint) = (relay.url(), relay.info.fingerprint.clone());
    let one = endpoint(&url, &fingerprint, Some(TOKEN)).await;
    let two = endpoint(&url, &fingerprint, Some(TOKEN)).await;
    online(&one).await;
    online(&two).await;
    let (here, there) = meet(&url, &one, &two).await;
    exchange(&here, &there, 1 << 20).await;
    let status: serde_json::Value =
        serde_json::from_str(&get(&web, "/status.json", &web).await).expect("JSON");
    assert!(status["bytes_delayed"].as_u64().expect("a number") > 0, "{status}");
    one.close().await;
    two.close().await;
    relay.stop().await;
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_gets_them_back() {
    let home = tempfile::tempdir().expect("a directory");
    let mut config = Config { web: "127.0.0.1:0".into(), ..config(home.path()) };
    config.limits.connections_per_address = 2;
    let relay = Running::start(config).await;
    let held = [connect(&relay).await, connect(&relay).await];
    let mut third = connect(&relay).await;
    let mut byte = [0];
    // Nothing comes but the end.
    let end = tokio::time::timeout(LONG, third.read(&mut byte)).await.expect("it is refused");
    assert!(!matches!(end, Ok(1..)), "{end:?}");
    drop(held);
    let (url, fingerprint) = (relay.url(), relay.info.fingerprint.clone());
    let one = endpoint(&url, &fingerprint, Some(TOKEN)).await;
    online(&one).await;
    one.close().await;
    relay.stop().await;
}

/// TLS with a relay.
async fn connect_tls(relay: &Running) -> TlsStream<TcpStream> {
    let certificate = pin::trusted(&relay.url(), &relay.info.fingerprint).await.expect("its own");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).expect("a root");
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "localhost".try_into().expect("a name");
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(tls));
    connector.connect(name, connect(relay).await).await.expect("TLS")
}

#[tokio::test]
async fn who_asks_something_plain_leaves_its_place_at_once() {
    let home = tempfile::tempdir().expect("a directory");
    let mut config = config(home.path());
    config.limits.connections_per_address = 4;
    config.limits.patience = 60; // if a place were held so long, the next ones would be refused
    let relay = Running::start(config).await;
    for path in ["/ping", "/none", "/relay"].into_iter().cycle().take(9) {
        let mut stream = connect_tls(&relay).await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("asked");
        let mut answer = Vec::new();
        let end = tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await;
        let _ = end.expect("it ends");
        assert!(answer.starts_with(b"HTTP/1.1 "), "{:?}", String::from_utf8_lossy(&answer));
        tokio::time::sleep(Duration::from_millis(100)).await; // the place is left a moment later
    }
    relay.stop().await;
}

#[tokio::test]
async fn who_asks_to_be_relayed_and_stays_silent_is_cut() {
    let home = tempfile::tempdir().expect("a directory");
    let mut config = config(home.path());
    config.limits.patience = 1;
    let relay = Running::start(config).await;
    let mut stream = connect_tls(&relay).await;
    let request = "GET /relay HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-protocol: iroh-relay-v2\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("asked");
    let mut answer = Vec::new();
    let end = tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await;
    let _ = end.expect("it is cut"); // without a farewell, which TLS calls an error
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{:?}", String::from_utf8_lossy(&answer));
    relay.stop().await;
}

#[tokio::test]
async fn who_has_no_token_is_told_so() {
    let home = tempfile::tempdir().expect("a directory");
    let relay = Running::start(config(home.path())).await;
    let (url, fingerprint) = (relay.url(), relay.info.fingerprint.clone());
    let wrong = endpoint(&url, &fingerprint, Some("another")).await;
    let reason = refusal(&wrong).await;
    assert!(reason.contains("the token is not one of this relay"), "{reason}");
    let none = endpoint(&url, &fingerprint, None).await;
    let reason = refusal(&none).await;
    assert!(reason.contains("asks for a token"), "{reason}");
    wrong.close().await;
    none.close().await;
    relay.stop().await;
}

#[tokio::test]
async fn the_pinned_certificate_and_no_other_is_believed() {
    let home = tempfile::tempdir().expect("a directory");
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut root = rcgen::CertificateParams::new([]).expect("no names");
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    root.distinguished_name.push(rcgen::DnType::CommonName, "an authority");
    let authority = root.self_signed(&key).expect("signed");
    let issuer = rcgen::Issuer::new(root, key);
    let leaf_key = rcgen::KeyPair::generate().expect("a key");
    let names = ["127.0.0.1".to_owned()];
    let leaf = rcgen::CertificateParams::new(names).expect("names");
    let leaf = leaf.signed_by(&leaf_key, &issuer).expect("signed");
    let [certificate, key, ca_file] =
        ["relay.crt", "relay.key", "ca.crt"].map(|file| home.path().join(file));
    for (file, text) in
        [(&certificate, leaf.pem()), (&key, leaf_key.serialize_pem()), (&ca_file, authority.pem())]
    {
        std::fs::write(file, text).expect("written");
    }
    let config = Config { certificate, key, ..config(home.path()) };
    // It is renewed, so endpoints are not told to believe this one.
    assert_eq!(relay::fingerprint(&config).expect("a certificate"), "");
    let relay = Running::start(config).await;
    let by_authority = config::Relay { fingerprint: String::new(), ca_file, ..asked(&relay) };
    relay::check(&by_authority, None, LONG).await.expect("the authority is believed");
    let pinned = config::Relay { fingerprint: "ab".repeat(32), ..by_authority };
    let mut map = RelayConfig::new(pinned.url.parse().expect("a URL"), None);
    map = map.with_auth_token(TOKEN);
    let endpoint = Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Custom(RelayMap::from_iter([map])))
        .ca_tls_config(pin::checks(&pinned).expect("a fingerprint"))
        .portmapper_config(PortmapperConfig::Disabled)
        .bind()
        .await
        .expect("an endpoint");
    let online = tokio::time::timeout(Duration::from_secs(3), endpoint.online()).await;
    assert!(online.is_err(), "another certificate than the pinned one is believed");
    endpoint.close().await;
    relay.stop().await;
}

fn asked(relay: &Running) -> config::Relay {
    config::Relay {
        url: relay.url(),
        token: TOKEN.into(),
        fingerprint: relay.info.fingerprint.clone(),
        udp_port: relay.info.udp.map_or(0, |udp| udp.port()),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_check_finds_what_is_wrong() {
    let home = tempfile::tempdir().expect("a directory");
    let relay = Running::start(config(home.path())).await;
    let right = asked(&relay);
    let report = relay::check(&right, None, LONG).await.expect("all is well");
    assert_eq!(report.fingerprint, relay.info.fingerprint);
    assert_eq!(report.address, None);

    let wrong = config::Relay { token: "another".into(), ..right.clone() };
    let error = relay::check(&wrong, None, LONG).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Permission);
    assert!(error.to_string().contains("the token is not one of this relay"), "{error}");

    relay.stop().await;
    let error = relay::check(&right, None, LONG).await.expect_err("nobody is there");
    assert!(error.to_string().contains("check that the relay runs"), "{error}");
}

#[tokio::test]
async fn addresses_are_told_by_udp() {
    let home = tempfile::tempdir().expect("a directory");
    // Whoever takes the port in between gets another try.
    let relay = loop {
        let free = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let udp_port = free.local_addr().expect("an address").port();
        drop(free);
        if let Ok(relay) = Running::try_start(Config { udp_port, ..config(home.path()) }).await {
            break relay;
        }
    };
    let report = relay::check(&asked(&relay), None, LONG).await.expect("all is well");
    assert!(report.address.is_some_and(|seen| seen.ip().is_loopback()), "{report:?}");
    assert_ne!(report.varies, Some(true), "there is no NAT");
    relay.stop().await;
}

#[tokio::test]
async fn certificates_that_cannot_be_used_are_explained() {
    let home = tempfile::tempdir().expect("a directory");
    let run = async |certificate: &Path, key: &Path| {
        let config =
            Config { certificate: certificate.into(), key: key.into(), ..config(home.path()) };
        let run = relay::run(config, CancellationToken::new(), |_| panic!("it runs"));
        run.await.expect_err("it cannot").to_string()
    };
    let [one, two] = ["one", "two"].map(|name| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
        let files = ["crt", "key"].map(|kind| home.path().join(name).with_extension(kind));
        std::fs::write(&files[0], made.cert.pem()).expect("written");
        std::fs::write(&files[1], made.signing_key.serialize_pem()).expect("written");
        files
    });
    let text = run(&one[0], &two[1]).await;
    assert!(text.contains("the key is not that of the certificate"), "{text}");
    let text = run(&home.path().join("none"), &one[1]).await;
    assert!(text.contains("check the path"), "{text}");
    let text = run(&one[1], &one[1]).await;
    assert!(text.contains("BEGIN CERTIFICATE"), "{text}");

    let key = rcgen::KeyPair::generate().expect("a key");
    let mut old = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("names");
    old.not_after = rcgen::date_time_ymd(2020, 1, 1);
    std::fs::write(&one[0], old.self_signed(&key).expect("signed").pem()).expect("written");
    std::fs::write(&one[1], key.serialize_pem()).expect("written");
    let text = run(&one[0], &one[1]).await;
    assert!(text.contains("expired") && text.contains("renew it"), "{text}");
}

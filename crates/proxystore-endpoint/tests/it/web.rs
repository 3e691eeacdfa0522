//! Metrics, health and the page.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use proxystore::wire::{Answer, Request, encode_request};
use proxystore_endpoint::body::{Body, PIECE};
use proxystore_endpoint::latency::{Kind, Latencies};
use proxystore_endpoint::status::{PeerStatus, RelayStatus, Status};
use proxystore_endpoint::web::metrics;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::exposition::Exposition;
use crate::running::{PATIENCE, Running};

/// The head of an answer in lower case, and what came with it.
struct Page {
    code: u16,
    head: String,
    text: String,
}

async fn ask(address: SocketAddr, request: &str) -> Page {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = timeout(PATIENCE, exchange).await.unwrap();
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    Page { code, head: head.to_ascii_lowercase(), text: text.to_owned() }
}

async fn get(address: SocketAddr, path: &str) -> Page {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    ask(address, &request).await
}

fn web_of(endpoint: &Running) -> SocketAddr {
    endpoint.card.web.as_ref().unwrap().parse().unwrap()
}

async fn stop(endpoint: Running) {
    endpoint.stop.cancel();
    endpoint.ended().await;
}

#[tokio::test]
async fn everything_answers_with_what_protects_it() {
    let endpoint = Running::start("").await;
    let web = web_of(&endpoint);
    assert!(web.ip().is_loopback());
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/base.css", "text/css; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
        ("/status.json", "application/json"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/health", "text/plain; charset=utf-8"),
    ] {
        let page = get(web, path).await;
        assert_eq!(page.code, 200, "{path}");
        assert!(page.head.contains(&format!("content-type: {kind}")), "{path}: {}", page.head);
        assert!(page.head.contains("content-security-policy: default-src 'self';"), "{path}");
        assert!(page.head.contains("x-content-type-options: nosniff"), "{path}");
        assert!(!page.text.is_empty(), "{path}");
    }
    assert_eq!(get(web, "/token").await.code, 404);
    let post = format!("POST /status.json HTTP/1.1\r\nHost: {web}\r\nConnection: close\r\n\r\n");
    assert_eq!(ask(web, &post).await.code, 405);
    stop(endpoint).await;
    assert!(TcpStream::connect(web).await.is_err(), "nobody is there any more");
}

#[tokio::test]
async fn a_page_has_nothing_from_elsewhere_and_nothing_inline() {
    let endpoint = Running::start("").await;
    let html = get(web_of(&endpoint), "/").await.text;
    assert!(!html.contains("://") && !html.contains("src=\"//"));
    assert!(!html.contains("<style") && !html.contains(" style=") && !html.contains(" onclick="));
    assert!(html.matches("<script").eq(["<script"]) && html.contains("src=\"/page.js\"></script>"));
    stop(endpoint).await;
}

#[tokio::test]
async fn an_endpoint_may_have_no_page() {
    let endpoint = Running::start("[web]\naddress = \"\"").await;
    assert_eq!(endpoint.card.web, None);
    stop(endpoint).await;
}

#[tokio::test]
async fn counters_grow_with_requests() {
    let endpoint = Running::start("").await;
    let web = web_of(&endpoint);
    let before = Exposition::parse(&get(web, "/metrics").await.text);
    let mut client = endpoint.client().await;
    for id in ["a", "b", "c"] {
        let request = Request::Put { name: endpoint.name(id), ttl: None, shared: None };
        let body = Bytes::from_static(&[7; 1000]).into();
        assert_eq!(client.ask(&request, body).await, Answer::Done);
    }
    let request = Request::Get { name: endpoint.name("a"), range: None, shared: false };
    assert!(matches!(client.ask(&request, Body::empty()).await, Answer::Object { .. }));
    let request = Request::Get { name: endpoint.name("a"), range: Some(5..2000), shared: false };
    assert!(matches!(client.ask(&request, Body::empty()).await, Answer::Failed(_)));

    let after = Exposition::parse(&get(web, "/metrics").await.text);
    let grown = |name: &str, labels: &[(&str, &str)]| {
        let name = format!("proxystore_endpoint_{name}");
        after.value(&name, labels) - before.value(&name, labels)
    };
    let by =
        |grown: f64, expected: f64| assert!((grown - expected).abs() < 0.5, "{grown} {expected}");
    by(grown("objects", &[]), 3.0);
    by(grown("clients", &[]), 1.0);
    by(grown("requests_total", &[]), 5.0);
    by(grown("requests_failed_total", &[]), 1.0);
    by(grown("received_bytes_total", &[("from", "clients")]), 3000.0);
    by(grown("sent_bytes_total", &[("to", "clients")]), 1000.0);
    by(grown("request_duration_seconds_count", &[("kind", "put")]), 3.0);
    by(grown("request_duration_seconds_count", &[("kind", "get")]), 2.0);
    assert!(grown("memory_bytes", &[]) >= 3000.0);
    assert!(grown("request_duration_seconds_sum", &[("kind", "put")]) > 0.0);

    let status: Value = serde_json::from_str(&get(web, "/status.json").await.text).unwrap();
    assert_eq!(status["name"], "site-a");
    assert_eq!(status["id"], endpoint.id.to_string());
    assert_eq!(status["storage"]["objects"], 3);
    stop(endpoint).await;
}

#[test]
fn names_of_others_cannot_break_metrics() {
    let nasty = "a \"b\" \\ c\nd} 1\n# HELP";
    let peer = PeerStatus {
        id: "p1".into(),
        name: nasty.into(),
        path: "relayed".into(),
        round_trip_us: 1500,
        bytes_in: 12,
        ..PeerStatus::default()
    };
    let status = Status {
        name: nasty.into(),
        relay: Some(RelayStatus { url: nasty.into(), connected: true, problem: None }),
        peers: vec![peer],
        ..Status::default()
    };
    let told = Exposition::parse(&metrics::text(&status, &Latencies::default()));
    let value = |name: &str| {
        told.value(&format!("proxystore_endpoint_{name}"), &[("peer", "p1"), ("name", nasty)])
    };
    assert!((value("peer_received_bytes_total") - 12.0).abs() < 0.5);
    assert!((value("peer_round_trip_seconds") - 0.0015).abs() < 1e-9);
    assert!(
        (told.value("proxystore_endpoint_relay_connected", &[("url", nasty)]) - 1.0).abs() < 0.5
    );
    assert!((told.value("proxystore_endpoint_peers", &[("path", "relayed")]) - 1.0).abs() < 0.5);
}

#[test]
fn many_peers_do_not_make_many_series() {
    let peer = |number: usize| PeerStatus { id: format!("p{number}"), ..PeerStatus::default() };
    let status = Status { peers: (0..5000).map(peer).collect(), ..Status::default() };
    let told = Exposition::parse(&metrics::text(&status, &Latencies::default()));
    assert_eq!(told.count("proxystore_endpoint_peer_connected"), metrics::PEERS);
    assert!((told.value("proxystore_endpoint_peers", &[("path", "none")]) - 5000.0).abs() < 0.5);
}

#[test]
fn a_request_is_counted_in_the_bucket_of_its_time() {
    let latencies = Latencies::default();
    for took in [0, 10_000, 10_001, 5_000_000_000, 60_000_000_000] {
        latencies.record(Kind::Get, Duration::from_nanos(took));
    }
    let told = Exposition::parse(&metrics::text(&Status::default(), &latencies));
    let bucket = |le| {
        let labels = [("kind", "get"), ("le", le)];
        told.value("proxystore_endpoint_request_duration_seconds_bucket", &labels)
    };
    for (le, count) in [("0.00001", 2.0), ("0.000025", 3.0), ("10", 4.0), ("+Inf", 5.0)] {
        assert!((bucket(le) - count).abs() < 0.5, "{le}");
    }
}

#[tokio::test]
async fn who_asks_by_the_name_of_another_host_is_refused() {
    let endpoint = Running::start("").await;
    let web = web_of(&endpoint);
    for path in ["/", "/status.json", "/metrics", "/health"] {
        for host in ["evil.example", &format!("evil.example:{}", web.port()), ""] {
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            let page = ask(web, &request).await;
            assert!(!page.text.contains(&endpoint.id.to_string()));
            assert_eq!(page.code, 421, "{path} {host}");
        }
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert_eq!(ask(web, &request).await.code, 200, "{path}");
    }
    stop(endpoint).await;
}

#[tokio::test]
async fn slow_and_senseless_clients_do_not_keep_others_waiting() {
    let endpoint = Running::start("").await;
    let web = web_of(&endpoint);
    let mut open = Vec::new();
    for begun in ["", "GET", "GET / HTTP/1.1\r\nHost: loc", "\0\u{1}\u{2}\r\n\r\n"].repeat(8) {
        let mut stream = TcpStream::connect(web).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        open.push(stream);
    }
    assert_eq!(get(web, "/health").await.code, 200);
    let endless = format!("GET / HTTP/1.1\r\nHost: {web}\r\nA: {}", "a".repeat(1 << 20));
    let mut stream = TcpStream::connect(web).await.unwrap();
    let _ = stream.write_all(endless.as_bytes()).await; // it may be sent away before its end
    assert_eq!(get(web, "/health").await.code, 200);

    // More than there are places for: they are sent away, and nobody else once they are gone.
    for _ in 0..100 {
        open.push(TcpStream::connect(web).await.unwrap());
    }
    drop(open);
    let again = async {
        let mut answered = false;
        while !answered {
            sleep(Duration::from_millis(10)).await;
            answered = is_healthy(web).await;
        }
    };
    timeout(PATIENCE, again).await.unwrap();
    stop(endpoint).await;
}

/// Whether it answers that it is; it may also send away.
async fn is_healthy(web: SocketAddr) -> bool {
    let request = format!("GET /health HTTP/1.1\r\nHost: {web}\r\nConnection: close\r\n\r\n");
    let Ok(mut stream) = TcpStream::connect(web).await else { return false };
    let _ = stream.write_all(request.as_bytes()).await; // the answer says it
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await; // likewise
    answer.starts_with("HTTP/1.1 200")
}

#[tokio::test]
async fn a_silent_browser_does_not_keep_an_endpoint_from_stopping() {
    let endpoint = Running::start("").await;
    let mut idle = TcpStream::connect(web_of(&endpoint)).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    stop(endpoint).await;
}

#[tokio::test]
async fn health_says_that_an_endpoint_is_stopping() {
    let endpoint = Running::start("").await;
    let web = web_of(&endpoint);
    assert_eq!(get(web, "/health").await.code, 200);
    // A client in the middle of a long object keeps it from ending.
    let mut client = endpoint.client().await;
    let request = Request::Put { name: endpoint.name("long"), ttl: None, shared: None };
    let half = vec![7; PIECE];
    let mut begun = Vec::new();
    encode_request(&mut begun, 1, &request, 2 * PIECE as u64, false).unwrap();
    begun.extend_from_slice(&half);
    client.write.write_all(&begun).await.unwrap();
    let has_begun = async {
        while !get(web, "/metrics").await.text.contains(&format!("from=\"clients\"}} {PIECE}\n")) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, has_begun).await.unwrap();
    endpoint.stop.cancel();
    assert_eq!(get(web, "/health").await.code, 503);
    client.write.write_all(&half).await.unwrap();
    assert_eq!(client.answer().await, Answer::Done);
    endpoint.ended().await;
}

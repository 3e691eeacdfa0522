//! A relay, and endpoints that meet there.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use iroh::endpoint::{Connection, PortmapperConfig, presets};
use iroh::{Endpoint, EndpointAddr, RelayConfig, RelayMap, RelayMode, TransportAddr, Watcher};
use proxystore_endpoint::relay::{self, Config, RelayInfo, pin};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const ALPN: &[u8] = b"relay-test";
const TOKEN: &str = "of-the-tests";
/// A bound against hanging, long enough for any machine.
const LONG: Duration = Duration::from_secs(60);

/// A relay that runs until it is stopped.
struct Running {
    info: RelayInfo,
    stop: CancellationToken,
    task: JoinHandle<proxystore::Result<()>>,
}

impl Running {
    async fn start(config: Config) -> Self {
        let stop = CancellationToken::new();
        let (tell, told) = tokio::sync::oneshot::channel();
        let run = relay::run(config, stop.clone(), |info| {
            tell.send(info.clone()).expect("the test waits");
        });
        let task = tokio::spawn(run);
        let info = tokio::time::timeout(LONG, told).await.expect("it starts").expect("it runs");
        Self { info, stop, task }
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

/// An endpoint that has no other way than the relay.
async fn endpoint(url: &str, fingerprint: &str, token: Option<&str>) -> Endpoint {
    let mut relay = RelayConfig::new(url.parse().expect("a URL"), None);
    if let Some(token) = token {
        relay = relay.with_auth_token(token);
    }
    Endpoint::builder(presets::Minimal)
        .alpns(vec![ALPN.to_vec()])
        .relay_mode(RelayMode::Custom(RelayMap::from_iter([relay])))
        .ca_tls_config(pin::pinned(fingerprint).expect("a fingerprint"))
        .portmapper_config(PortmapperConfig::Disabled)
        .clear_ip_transports()
        .bind()
        .await
        .expect("an endpoint")
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

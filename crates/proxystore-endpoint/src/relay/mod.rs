//! The relay: where endpoints meet that cannot reach each other.
//!
//! Endpoints behind NATs stay connected to it. It tells them apart by their public keys, passes on what they send each
//! other, and helps them to find direct paths. What it carries is encrypted between the endpoints.
//!
//! - [`Config`]: what it is told; [`run`]: runs it; [`RelayInfo`]: how it is reached then.
//! - [`check`]: whether a relay can be reached and admits; for people who look for what is wrong.
//! - [`pin`]: which relay's certificate is believed.

mod certificate;
mod check;
mod config;
mod front;
mod gate;
mod page;
pub mod pin;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iroh_relay::server::{Metrics, QuicConfig, Server, ServerConfig};
use proxystore::{Error, ErrorKind, Result};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::certificate::Certificate;
pub use self::check::{Report, check};
pub use self::config::{Access, Config, Limits, TEMPLATE, default_directory};
use self::front::Front;
use self::gate::Gate;
use self::page::Site;
use crate::web::Web;

const START: &str = "start a relay";

/// How often the files of the certificate are read again.
const RENEWAL: Duration = Duration::from_hours(1);

/// How a relay is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RelayInfo {
    /// What endpoints write in `url` of section `[relay]`; another name of the host may serve them better.
    pub url: String,
    /// The TCP address it listens on.
    pub tcp: SocketAddr,
    /// The UDP address at which it tells endpoints their addresses.
    pub udp: Option<SocketAddr>,
    /// Where page, metrics and health are.
    pub web: Option<SocketAddr>,
    /// SHA-256 of the certificate, which endpoints write in `fingerprint`.
    pub fingerprint: String,
    /// Whether no authority signed its certificate.
    pub self_signed: bool,
    /// What the certificate is valid for.
    pub names: Vec<String>,
    /// Seconds since 1970 at which the certificate expires.
    pub expires: i64,
}

/// Runs a relay until `stop` is cancelled. `ready` is called once endpoints can connect.
///
/// # Errors
/// When the configuration contradicts itself, the certificate cannot be used, or a port cannot be had.
pub async fn run(
    config: Config,
    stop: CancellationToken,
    ready: impl FnOnce(&RelayInfo),
) -> Result<()> {
    config.check()?;
    let gate = Gate::new(&config.access, &config.limits)?;
    let certificate = Certificate::open(&config)?;
    let metrics = Arc::new(Metrics::default());
    let tls = certificate.server_config()?;
    let front =
        Front::new(&gate, TlsAcceptor::from(Arc::new(tls.clone())), &config.limits, &metrics);
    let address = SocketAddr::new(config.host, config.port);
    let listener =
        TcpListener::bind(address).await.map_err(|error| bind_failed(error, address, "port"))?;
    let quic = match config.udp_port {
        0 => None,
        port => Some(addresses(SocketAddr::new(config.host, port), tls.clone()).await?),
    };
    let second = match second_port(config.udp_port) {
        None => None,
        Some(port) => addresses(SocketAddr::new(config.host, port), tls)
            .await
            .inspect_err(|error| warn!(%error, "no doctor can tell the kind of a NAT"))
            .ok(),
    };
    let web = match config.web_address()? {
        Some(address) => Some(Web::open(address).await?),
        None => None,
    };
    let info = info(&config, &listener, quic.as_ref(), web.as_ref(), &certificate)?;
    info!(
        url = info.url,
        tcp = %info.tcp,
        udp = info.udp.map(tracing::field::display),
        web = info.web.map(tracing::field::display),
        fingerprint = info.fingerprint,
        "the relay runs"
    );
    ready(&info);
    let site = Site {
        started: Instant::now(),
        info,
        open: config.access.open,
        connection_limit: config.limits.connections,
        gate,
        metrics,
        lookups: quic.as_ref().map(|quic| Arc::clone(&quic.metrics().server)),
    };
    let page = async {
        if let Some(web) = web {
            web.serve(site.router(), stop.clone()).await;
        }
    };
    let renewal = async {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(RENEWAL) => certificate.reload(),
            }
        }
    };
    tokio::join!(front.serve(listener, stop.clone()), page, renewal);
    for quic in quic.into_iter().chain(second) {
        let _ = quic.shutdown().await; // it stops either way
    }
    info!("the relay stopped");
    Ok(())
}

/// The UDP port that tells addresses as well, for those who wonder whether a NAT shows them alike to everyone.
fn second_port(port: u16) -> Option<u16> {
    port.checked_add(1).filter(|_| port != 0)
}

/// What tells endpoints their addresses.
async fn addresses(address: SocketAddr, tls: rustls::ServerConfig) -> Result<Server> {
    // The library binds it again at once, and does not say why when it cannot.
    std::net::UdpSocket::bind(address).map_err(|error| bind_failed(error, address, "udp_port"))?;
    let mut quic = QuicConfig::new(address);
    quic.server_config = Some(tls);
    let mut config = ServerConfig::default();
    config.quic = Some(quic);
    Server::spawn(config).await.map_err(|source| {
        Error::new(ErrorKind::Io, START, source.to_string())
            .with("address", address)
            .with_hint("check `udp_port`; 0 does without")
            .with_source(source)
    })
}

fn bind_failed(error: std::io::Error, address: SocketAddr, setting: &str) -> Error {
    use std::io::ErrorKind as Io;
    let hint = match error.kind() {
        Io::AddrInUse => format!(
            "another program, or another relay, has it: stop that, or choose another `{setting}`"
        ),
        Io::PermissionDenied => format!(
            "ports below 1024 need a right: grant CAP_NET_BIND_SERVICE, or choose another `{setting}`"
        ),
        Io::AddrNotAvailable | Io::Unsupported => {
            "set `host` to an address of this machine, or to \"0.0.0.0\"".into()
        }
        _ => format!("check `host` and `{setting}`"),
    };
    Error::io(START, error).with("address", address).with_hint(hint)
}

/// The URL by which endpoints reach a relay: its first name, and its port.
///
/// # Errors
/// When its certificate cannot be read or made.
pub fn url(config: &Config) -> Result<String> {
    let certificate = Certificate::open(config)?;
    Ok(url_of(config, config.port, &certificate))
}

/// What endpoints should believe a relay by: SHA-256 of its certificate, in hexadecimal. Empty for one that an authority
/// signed, which is renewed and believed for that. Makes the certificate if there is none.
///
/// # Errors
/// When it cannot be read or made.
pub fn fingerprint(config: &Config) -> Result<String> {
    let shown = Certificate::open(config)?.shown();
    Ok(if shown.self_signed { shown.fingerprint.clone() } else { String::new() })
}

fn url_of(config: &Config, port: u16, certificate: &Certificate) -> String {
    let shown = certificate.shown();
    let host = match config.names.first().or(shown.names.first()) {
        Some(name) if name.contains(':') => format!("[{name}]"),
        Some(name) => name.clone(),
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    format!("https://{host}:{port}")
}

fn info(
    config: &Config,
    listener: &TcpListener,
    quic: Option<&Server>,
    web: Option<&Web>,
    certificate: &Certificate,
) -> Result<RelayInfo> {
    let tcp = listener.local_addr().map_err(|error| Error::io(START, error))?;
    let shown = certificate.shown();
    Ok(RelayInfo {
        url: url_of(config, tcp.port(), certificate),
        tcp,
        udp: quic.and_then(Server::quic_addr),
        web: web.map(Web::address),
        fingerprint: shown.fingerprint.clone(),
        self_signed: shown.self_signed,
        names: shown.names.clone(),
        expires: shown.expires,
    })
}

//! The network: QUIC, dialled by public key, direct where that works and by a relay where not.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use iroh::endpoint::{
    BindOpts, Builder, Connection, ControllerFactory, PortmapperConfig, QuicTransportConfig,
    VarInt, presets,
};
use iroh::{Endpoint, RelayConfig, RelayMap, RelayMode, SecretKey};
use iroh_relay::RelayQuicConfig;
use noq_proto::congestion::{Bbr3Config, CubicConfig, NewRenoConfig};
use proxystore::{Error, ErrorKind, Result};

use super::book::relay_url;
use crate::config::Config;
use crate::relay::pin;

/// The protocol between endpoints.
pub(super) const ALPN: &[u8] = b"proxystore/1";

const START: &str = "open the network for peers";

/// How many bytes of one stream may come before they are read. With 3 MiB and more the library gives connections up.
const STREAM_WINDOW: u32 = 2 << 20;
/// How many bytes of one connection may.
const WINDOW: u32 = 32 << 20;
/// And how many before the other side is admitted. It has one stream then, to say who it is.
const WINDOW_OF_STRANGERS: u32 = 64 << 10;
/// How many bytes of one connection may be sent before they are acknowledged.
const SEND_WINDOW: u64 = 64 << 20;
/// How many requests a peer may have under way at once. Those that wait for objects count.
const STREAMS: u32 = 1024;
/// A path that is silent for so long is given up for another one, or with the connection.
const PATH_IDLE: Duration = Duration::from_secs(3);
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// A connection that is silent for so long is given up.
const IDLE: u32 = 15_000;

/// Opens the network of an endpoint.
pub(super) async fn open(secret: SecretKey, config: &Config) -> Result<Endpoint> {
    let mut builder = Endpoint::builder(presets::Minimal)
        .secret_key(secret)
        .alpns(vec![ALPN.to_vec()])
        .portmapper_config(PortmapperConfig::Disabled)
        .transport_config(transport(&config.peers.congestion)?);
    builder = match relay(config)? {
        None => builder.relay_mode(RelayMode::Disabled),
        Some(relay) => builder
            .relay_mode(RelayMode::Custom(RelayMap::from(relay)))
            .ca_tls_config(pin::checks(&config.relay)?),
    };
    let port = config.peers.port;
    if !config.peers.direct {
        builder = relayed(builder, config)?;
    } else if port != 0 {
        builder = bound(builder, port).map_err(|error| {
            Error::new(ErrorKind::Config, START, error.to_string()).with("port", port)
        })?;
    }
    builder.bind().await.map_err(|error| {
        Error::new(ErrorKind::Io, START, error.to_string())
            .with("port", port)
            .with_hint("is the port taken? choose another `port` in section [peers], or 0 for any")
    })
}

/// The same port for both kinds of addresses; hosts without the newer kind do without.
fn bound(builder: Builder, port: u16) -> Result<Builder, iroh::endpoint::InvalidSocketAddr> {
    let optional = BindOpts::default().set_is_required(false);
    builder
        .bind_addr(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?
        .bind_addr_with_opts(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), optional)
}

/// Without addresses of its own, it neither finds direct paths nor is found by them.
fn relayed(builder: Builder, config: &Config) -> Result<Builder> {
    if config.relay.url.is_empty() {
        return Err(Error::new(
            ErrorKind::Config,
            START,
            "peers cannot be reached: not directly, and by no relay",
        )
        .with_hint("set `url` in section [relay], or `direct = true` in section [peers]"));
    }
    Ok(builder.clear_ip_transports())
}

fn relay(config: &Config) -> Result<Option<RelayConfig>> {
    let Some(url) = relay_url(&config.relay.url)? else { return Ok(None) };
    let udp = (config.relay.udp_port != 0).then(|| RelayQuicConfig::new(config.relay.udp_port));
    let relay = RelayConfig::new(url, udp);
    Ok(Some(match config.relay.token.as_str() {
        "" => relay,
        token => relay.with_auth_token(token),
    }))
}

/// Gives a peer that is admitted what it needs.
pub(super) fn open_up(connection: &Connection) {
    connection.set_receive_window(VarInt::from_u32(WINDOW));
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(STREAMS));
}

fn transport(congestion: &str) -> Result<QuicTransportConfig> {
    let controller: Arc<dyn ControllerFactory + Send + Sync> = match congestion {
        "" | "cubic" => Arc::new(CubicConfig::default()),
        "bbr" => Arc::new(Bbr3Config::default()),
        "newreno" => Arc::new(NewRenoConfig::default()),
        _ => {
            return Err(Error::new(ErrorKind::Config, START, "`congestion` is unknown")
                .with("congestion", format_args!("{congestion:?}"))
                .with_hint("write \"cubic\", \"bbr\" or \"newreno\" in section [peers]"));
        }
    };
    Ok(QuicTransportConfig::builder()
        .congestion_controller_factory(controller)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(WINDOW_OF_STRANGERS))
        .send_window(SEND_WINDOW)
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(VarInt::from_u32(IDLE).into()))
        .default_path_max_idle_timeout(PATH_IDLE)
        .default_path_keep_alive_interval(KEEP_ALIVE)
        .build())
}

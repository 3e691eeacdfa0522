//! Whether a relay can be reached, is believed, and admits.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use iroh::endpoint::{PortmapperConfig, presets};
use iroh::unstable_net_report::NetReport;
use iroh::{Endpoint, RelayConfig, RelayMap, RelayMode, RelayUrl, SecretKey, Watcher};
use iroh_relay::RelayQuicConfig;
use proxystore::{Error, ErrorKind, Result};
use serde::Serialize;

use super::{pin, second_port};
use crate::config;

const CHECK: &str = "reach the relay";
/// How long the relay may take to tell an address by UDP.
const UDP: Duration = Duration::from_secs(5);
/// And to tell it once more, from another port.
const SECOND: Duration = Duration::from_secs(2);

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// SHA-256 of the certificate that it shows.
    pub fingerprint: String,
    /// How long it took to connect and to speak TLS.
    pub tls: Duration,
    /// How long it took from the start until it admitted an endpoint.
    pub admitted: Duration,
    /// This host's address as it is seen from there; none where UDP does not pass, and then no path is direct.
    pub address: Option<SocketAddr>,
    /// Whether that address depends on whom it is shown to, as behind a symmetric NAT; none where it is not known.
    pub varies: Option<bool>,
}

/// Connects to a relay as an endpoint does, and leaves again.
///
/// A relay that lists who is admitted must be asked as the endpoint, with its secret key; only do that while its
/// daemon does not run, for what is sent to the endpoint goes to whoever connected last.
///
/// # Errors
/// When it is not reached within `patience`, shows another certificate than the configured one or one that is not
/// believed, or refuses; then says why.
pub async fn check(
    relay: &config::Relay,
    identity: Option<SecretKey>,
    patience: Duration,
) -> Result<Report> {
    let start = Instant::now();
    let (host, port) = pin::host_and_port(&relay.url)?;
    let shown = if relay.fingerprint.is_empty() {
        pin::fetch_certificate(&host, port).await?
    } else {
        pin::trusted(&relay.url, &relay.fingerprint).await?
    };
    let connected = start.elapsed();
    let url: RelayUrl = relay.url.parse().map_err(|source| {
        Error::new(ErrorKind::Config, CHECK, "this is no URL").with_source(source)
    })?;
    let known = |url, port: Option<u16>| {
        let relay_config = RelayConfig::new(url, port.map(RelayQuicConfig::new));
        match relay.token.as_str() {
            "" => relay_config,
            token => relay_config.with_auth_token(token),
        }
    };
    // The library compares what relays say. This one says it twice, from two ports.
    let second = second_port(relay.udp_port).and_then(|port| {
        let url = format!("{}/second", relay.url.trim_end_matches('/'));
        Some(known(url.parse().ok()?, Some(port)))
    });
    let first = known(url, Some(relay.udp_port).filter(|port| *port != 0));
    let relays: RelayMap = [Some(first), second].into_iter().flatten().collect();
    let endpoint = Endpoint::builder(presets::Minimal)
        .secret_key(identity.unwrap_or_else(SecretKey::generate))
        .relay_mode(RelayMode::Custom(relays))
        .ca_tls_config(pin::checks(relay)?)
        .portmapper_config(PortmapperConfig::Disabled)
        .bind()
        .await
        .map_err(|source| Error::new(ErrorKind::Io, CHECK, source.to_string()))?;
    let result =
        admitted(&endpoint, patience).await.map_err(|error| error.with("relay", &relay.url));
    let admitted = start.elapsed();
    let (address, varies) = match result {
        Ok(()) if relay.udp_port != 0 => seen_address(&endpoint).await,
        _ => (None, None),
    };
    endpoint.close().await;
    result.map(|()| Report {
        fingerprint: pin::fingerprint_of(&shown),
        tls: connected,
        admitted,
        address,
        varies,
    })
}

async fn admitted(endpoint: &Endpoint, patience: Duration) -> Result<()> {
    let mut status = endpoint.home_relay_status();
    let refused = async {
        loop {
            let now = status.get();
            if let Some(reason) = now.iter().find_map(|status| status.auth_denied_reason()) {
                return reason.to_owned();
            }
            if status.updated().await.is_err() {
                return "the endpoint was closed".into();
            }
        }
    };
    let attempt = async {
        tokio::select! {
            reason = refused => Err(Error::new(ErrorKind::Permission, CHECK, reason)
                .with_hint("set `token` in section [relay], or ask its operator to list this endpoint")),
            () = endpoint.online() => Ok(()),
        }
    };
    if let Ok(result) = tokio::time::timeout(patience, attempt).await {
        return result;
    }
    let now = endpoint.home_relay_status().get();
    let cause = now.iter().find_map(|status| status.last_error()).map(|error| format!("{error:#}"));
    // The library says nothing of a certificate that it does not believe.
    Err(match cause {
        Some(cause) => Error::new(ErrorKind::Io, CHECK, cause)
            .with_hint("see the relay's log for what it says of this endpoint"),
        None => Error::new(ErrorKind::Untrusted, CHECK, "its certificate is not believed")
            .with_hint(
                "set `fingerprint` in section [relay] to what the relay prints, or `ca_file`",
            ),
    })
}

/// The address that is seen, and whether it varies.
async fn seen_address(endpoint: &Endpoint) -> (Option<SocketAddr>, Option<bool>) {
    let reports = endpoint.net_report();
    let told = |report: &NetReport| {
        report.global_v4.map(SocketAddr::from).or(report.global_v6.map(SocketAddr::from))
    };
    let Some(report) = first_that(reports.clone(), UDP, |report| told(report).is_some()).await
    else {
        return (None, None);
    };
    let compared = |report: &NetReport| report.mapping_varies_by_dest().is_some();
    let later = first_that(reports, SECOND, compared).await;
    (told(&report), later.and_then(|report| report.mapping_varies_by_dest()))
}

/// The first of the reports that is so, within this time.
async fn first_that(
    mut reports: impl Watcher<Value = Option<NetReport>>,
    within: Duration,
    so: impl Fn(&NetReport) -> bool,
) -> Option<NetReport> {
    let found = async {
        loop {
            if let Some(report) = reports.get().filter(&so) {
                return Some(report);
            }
            reports.updated().await.ok()?;
        }
    };
    tokio::time::timeout(within, found).await.ok().flatten()
}

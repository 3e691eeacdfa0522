//! The way to the relay.

use std::net::UdpSocket;
use std::time::Duration;

use proxystore::{Error, ErrorKind, Result};
use proxystore_endpoint::config::Config;
use proxystore_endpoint::directory::Directory;
use proxystore_endpoint::relay::{Report, check};

use super::Findings;

const PATIENCE: Duration = Duration::from_secs(20);

/// Connects to the relay as an endpoint does. While the daemon runs that is another endpoint, whom a relay that
/// lists endpoints refuses: then the daemon's word counts.
pub(super) fn look(
    directory: &Directory,
    config: &Config,
    running: bool,
    findings: &mut Findings<'_>,
) {
    match tried(directory, config, running) {
        Err(error) if running && error.kind() == ErrorKind::Permission => {}
        Err(error) => findings.failed("way to relay", &error),
        Ok(report) => {
            findings.ok(
                "way to relay",
                format!(
                    "TLS after {} ms, admitted after {} ms",
                    report.tls.as_millis(),
                    report.admitted.as_millis()
                ),
            );
            udp(config, &report, findings);
        }
    }
}

fn tried(directory: &Directory, config: &Config, running: bool) -> Result<Report> {
    let identity = if running { None } else { Some(directory.identity()?) };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::io("reach the relay", error))?;
    runtime.block_on(check(&config.relay, identity, PATIENCE))
}

fn udp(config: &Config, report: &Report, findings: &mut Findings<'_>) {
    match report.address {
        _ if config.relay.udp_port == 0 => findings.warning(
            "UDP",
            "it is off: what peers exchange across NATs passes through the relay",
            "set `udp_port` in section [relay], if the relay has one",
        ),
        None => findings.warning(
            "UDP",
            format!(
                "port {} of the relay does not answer: no NAT is passed directly",
                config.relay.udp_port
            ),
            "let UDP pass firewalls on both sides; without, it works by the relay alone",
        ),
        // An address of this host can be bound; that of a NAT cannot.
        Some(address) if UdpSocket::bind((address.ip(), 0)).is_ok() => {
            findings.ok("UDP", format!("it passes, without NAT: the relay sees {}", address.ip()));
        }
        Some(address) if report.varies == Some(true) => findings.warning(
            "UDP",
            format!("it passes, by a symmetric NAT, which shows everyone another address: the relay sees {address}"),
            "peers behind such NATs too, or behind strict firewalls, are reached by the relay; a peer that can be \
             reached at an address of its own is reached directly",
        ),
        Some(address) => {
            let kind = match report.varies {
                None => "a NAT",
                Some(_) => "a NAT that lets peers through, for it shows the same address to all",
            };
            findings.ok("UDP", format!("it passes, by {kind}: the relay sees {address}"));
        }
    }
}

//! Where endpoints are reached.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use iroh::{EndpointAddr, PublicKey, RelayUrl, TransportAddr};
use proxystore::wire::EndpointId;
use proxystore::{Error, ErrorKind, Result};

use super::dial::lock;
use crate::config::{self, Config};
use crate::relay::pin;

/// How many hints of clients are remembered.
const HINTS: usize = 4096;

/// The relay and the addresses of one endpoint.
type Ways = (Option<RelayUrl>, Vec<String>);

/// Addresses and relays of endpoints, from the configuration and from clients.
#[derive(Debug)]
pub(super) struct Book {
    own_relay: Option<RelayUrl>,
    configured: Mutex<HashMap<EndpointId, Ways>>,
    hints: Mutex<HashMap<EndpointId, RelayUrl>>,
}

impl Book {
    /// As the configuration says.
    pub(super) fn new(config: &Config) -> Result<Self> {
        let configured = Mutex::new(configured(config)?);
        Ok(Self { own_relay: relay_url(&config.relay.url)?, configured, hints: Mutex::default() })
    }

    /// Takes over where peers are.
    pub(super) fn reload(&self, config: &Config) -> Result<()> {
        let new = configured(config)?;
        *lock(&self.configured) = new;
        Ok(())
    }

    /// Remembers by which relay an endpoint may be reached. Clients know it from keys.
    pub(super) fn hint(&self, peer: EndpointId, relay: &str) -> Result<()> {
        let Some(relay) = relay_url(relay)? else { return Ok(()) };
        let mut hints = lock(&self.hints);
        if hints.len() >= HINTS && !hints.contains_key(&peer) {
            hints.clear(); // who still needs one gives it again
        }
        hints.insert(peer, relay);
        Ok(())
    }

    /// All ways to an endpoint that are known. Names of hosts are looked up.
    pub(super) async fn ways(&self, peer: &EndpointId) -> Result<EndpointAddr> {
        let key = PublicKey::from_bytes(peer.as_bytes()).map_err(|source| {
            Error::new(ErrorKind::Config, "reach a peer", "its id is no public key")
                .with("peer", peer)
                .with_source(source)
        })?;
        let mut addresses: Vec<TransportAddr> = Vec::new();
        let mut relay = None;
        let known = lock(&self.configured).get(peer).cloned();
        if let Some((configured, hosts)) = known {
            relay = configured;
            for host in &hosts {
                addresses.extend(lookup(host).await.into_iter().map(TransportAddr::Ip));
            }
        }
        let hinted = || lock(&self.hints).get(peer).cloned();
        let relay = relay.or_else(hinted).or_else(|| self.own_relay.clone());
        addresses.extend(relay.map(TransportAddr::Relay));
        if addresses.is_empty() {
            return Err(Error::new(ErrorKind::Config, "reach a peer", "no way to it is known")
                .with("peer", peer)
                .with_hint(
                    "set `url` in section [relay], or `relay` or `addresses` of this peer in [[peers.allow]]",
                ));
        }
        Ok(EndpointAddr::from_parts(key, addresses))
    }
}

fn configured(config: &Config) -> Result<HashMap<EndpointId, Ways>> {
    let ways = |peer: &config::Peer| {
        Ok((peer.id.parse()?, (relay_url(&peer.relay)?, peer.addresses.clone())))
    };
    config.peers.allow.iter().map(ways).collect()
}

async fn lookup(host: &str) -> Vec<SocketAddr> {
    match tokio::net::lookup_host(host).await {
        Ok(found) => found.collect(),
        Err(error) => {
            tracing::warn!(host, %error, "an address of a peer cannot be found");
            Vec::new()
        }
    }
}

/// The relay of a text; `None` for an empty one.
pub(super) fn relay_url(text: &str) -> Result<Option<RelayUrl>> {
    (!text.is_empty()).then(|| pin::relay_url(text)).transpose()
}

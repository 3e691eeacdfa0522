//! Where endpoints are reached.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::time::Duration;

use iroh::{EndpointAddr, PublicKey, RelayUrl, TransportAddr};
use lru::LruCache;
use proxystore::wire::EndpointId;
use proxystore::{Error, ErrorKind, Result};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::dial::lock;
use crate::config::{self, Config};
use crate::relay::pin;

/// How many hints of clients are remembered; who still needs an older one gives it again.
const HINTS: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// How long it may take to look up the name of a host.
const LOOKUP: Duration = Duration::from_secs(2);

/// The relay and the addresses of one endpoint.
type Ways = (Option<RelayUrl>, Vec<String>);

/// Addresses and relays of endpoints, from the configuration and from clients.
#[derive(Debug)]
pub(super) struct Book {
    own_relay: Option<RelayUrl>,
    configured: Mutex<HashMap<EndpointId, Ways>>,
    hints: Mutex<LruCache<EndpointId, RelayUrl>>,
}

impl Book {
    /// As the configuration says.
    pub(super) fn new(config: &Config) -> Result<Self> {
        let configured = Mutex::new(configured(config)?);
        let hints = Mutex::new(LruCache::new(HINTS));
        Ok(Self { own_relay: relay_url(&config.relay.url)?, configured, hints })
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
        lock(&self.hints).put(peer, relay);
        Ok(())
    }

    /// All ways to an endpoint that are known, which are tried together: a wrong hint takes away none of them. Names of
    /// hosts are looked up.
    pub(super) async fn ways(&self, peer: &EndpointId) -> Result<EndpointAddr> {
        let key = PublicKey::from_bytes(peer.as_bytes()).map_err(|source| {
            Error::new(ErrorKind::Config, "reach a peer", "its id is no public key")
                .with("peer", peer)
                .with_source(source)
        })?;
        let (configured, hosts) = lock(&self.configured).get(peer).cloned().unwrap_or_default();
        let hinted = lock(&self.hints).get(peer).cloned();
        let relays = [configured, hinted, self.own_relay.clone()];
        let mut addresses: Vec<_> =
            relays.into_iter().flatten().map(TransportAddr::Relay).collect();
        let mut lookups: JoinSet<_> = hosts.into_iter().map(lookup).collect();
        while let Some(found) = lookups.join_next().await {
            addresses.extend(found.unwrap_or_default().into_iter().map(TransportAddr::Ip));
        }
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

async fn lookup(host: String) -> Vec<SocketAddr> {
    match timeout(LOOKUP, tokio::net::lookup_host(&host)).await {
        Ok(Ok(found)) => return found.collect(),
        Ok(Err(error)) => tracing::warn!(host, %error, "an address of a peer cannot be found"),
        Err(_) => tracing::warn!(host, "an address of a peer is not found in time"),
    }
    Vec::new()
}

/// The relay of a text; `None` for an empty one.
pub(super) fn relay_url(text: &str) -> Result<Option<RelayUrl>> {
    (!text.is_empty()).then(|| pin::relay_url(text)).transpose()
}

//! Peers and the relay, as they are seen from here.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use iroh::Watcher;
use proxystore::wire::{EndpointId, Pong};

use super::Peers;
use super::dial::lock;
use super::link::Path;
use crate::status::{PeerStatus, RelayStatus};

/// Whether the path to each peer was direct when it was last looked at.
#[derive(Debug, Default)]
pub(super) struct Paths(Mutex<HashMap<EndpointId, bool>>);

impl Paths {
    /// Whether the path was direct before, if it is another now. A first path is one that was not direct before.
    pub(super) fn changed(&self, peer: EndpointId, direct: Option<bool>) -> Option<bool> {
        let mut paths = lock(&self.0);
        let before = match direct {
            Some(direct) => paths.insert(peer, direct),
            None => paths.remove(&peer),
        };
        (before != direct).then_some(before == Some(true))
    }
}

impl Peers {
    /// The relay, if there is one, and the peers that are on the list or were met.
    pub fn status(&self) -> (Option<RelayStatus>, Vec<PeerStatus>) {
        let (met, admission) = (self.slots.all(), self.admission());
        let mut peers: Vec<PeerStatus> = met
            .iter()
            .map(|(id, slot)| {
                let link = slot.link();
                let path = link.as_ref().and_then(|link| link.path());
                let state = match (&link, slot.failure()) {
                    (Some(_), _) => "connected".into(),
                    (None, None) => "idle".into(),
                    (None, Some((_, fault))) => fault.into_error("reach it").to_string(),
                };
                PeerStatus {
                    id: id.to_string(),
                    name: admission.name(id),
                    state,
                    path: path.as_ref().map(|path| path.kind().into()).unwrap_or_default(),
                    round_trip_us: path.as_ref().map(round_trip).unwrap_or_default(),
                    via: path.map(|path| path.via).unwrap_or_default(),
                    bytes_in: slot.traffic.bytes_in.get(),
                    bytes_out: slot.traffic.bytes_out.get(),
                }
            })
            .collect();
        let met: HashSet<EndpointId> = met.into_iter().map(|(id, _)| id).collect();
        peers.extend(admission.listed().filter(|id| !met.contains(id)).map(|id| PeerStatus {
            id: id.to_string(),
            name: admission.name(&id),
            state: "idle".into(),
            ..PeerStatus::default()
        }));
        peers.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        (self.relay_status(), peers)
    }

    fn relay_status(&self) -> Option<RelayStatus> {
        let url = self.relay.clone()?;
        let found = self.network.home_relay_status().get();
        let Some(status) = found.first() else {
            return Some(RelayStatus {
                url,
                connected: false,
                problem: Some(
                    "no answer that is believed: see the URL, and `fingerprint` or `ca_file` in section [relay]"
                        .into(),
                ),
            });
        };
        let problem = (!status.is_connected()).then(|| {
            match (status.auth_denied_reason(), status.last_error()) {
                (Some(denied), _) => format!("it refuses this endpoint: {denied}"),
                (None, Some(error)) => format!("{error:#}"),
                (None, None) => "not connected yet".into(),
            }
        });
        Some(RelayStatus { url, connected: status.is_connected(), problem })
    }
}

/// How a peer is reached, as clients are told.
pub(super) fn pong(path: Option<Path>, round_trip_us: u64) -> Pong {
    path.map_or_else(Pong::default, |path| Pong {
        path: path.kind().into(),
        via: path.via,
        round_trip_us,
    })
}

fn round_trip(path: &Path) -> u64 {
    u64::try_from(path.round_trip.as_micros()).unwrap_or(u64::MAX)
}

//! Who is admitted: connections are counted from the moment they are accepted, and named once they have
//! proven which endpoint they are.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use iroh_relay::server::{Access as Verdict, AccessControl, ClientRequest, ConnectionId};
use proxystore::Result;
use proxystore::wire::EndpointId;
use tracing::{info, warn};

use super::config::{Access, Limits};

/// The header in which the relay tells itself the number of a connection; what a client says in it is overwritten.
pub(super) const NUMBER: &str = "x-proxystore-connection";

/// How many refusals are remembered.
const REMEMBERED: usize = 50;

/// Decides, counts and remembers.
#[derive(Debug)]
pub(super) struct Gate {
    open: bool,
    /// Hashes of the tokens: comparing these takes the same time for any wrong one.
    tokens: Vec<blake3::Hash>,
    allow: Vec<EndpointId>,
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Connections that were accepted and have not proven yet who they are.
    arriving: HashMap<u64, Arrival>,
    clients: HashMap<ConnectionId, Client>,
    by_network: HashMap<IpAddr, usize>,
    refused: u64,
    refusals: VecDeque<Refusal>,
}

#[derive(Debug)]
struct Arrival {
    address: IpAddr,
    /// Dropped once the gate has decided, for whoever watches over the time that takes.
    _undecided: tokio::sync::oneshot::Sender<()>,
}

/// An endpoint that is connected.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) id: EndpointId,
    pub(super) address: IpAddr,
    pub(super) since: Instant,
}

/// An endpoint or a connection that was not admitted.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    /// None if it was refused before it could say.
    pub(super) id: Option<EndpointId>,
    pub(super) address: IpAddr,
    pub(super) reason: String,
    pub(super) at: Instant,
}

/// A connection that was accepted and has a place until it is dropped, or else until the client it became leaves.
#[derive(Debug)]
pub(super) struct Place {
    gate: Arc<Gate>,
    pub(super) number: u64,
    pub(super) decided: tokio::sync::oneshot::Receiver<()>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        if let Some(arrival) = state.arriving.remove(&self.number) {
            state.leave(arrival.address);
        }
    }
}

/// What the page shows.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) clients: Vec<Client>,
    pub(super) arriving: usize,
    pub(super) refused: u64,
    /// The last of them, newest first.
    pub(super) refusals: Vec<Refusal>,
}

impl Gate {
    pub(super) fn new(access: &Access, limits: &Limits) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            open: access.open,
            tokens: access.tokens.iter().map(|token| blake3::hash(token.as_bytes())).collect(),
            allow: access.allow.iter().map(|id| id.parse()).collect::<Result<_>>()?,
            limits: limits.clone(),
            state: Mutex::default(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a new connection a place, if there is one.
    pub(super) fn arrive(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        let mut state = self.state();
        let here = state.by_network.get(&network(address)).copied().unwrap_or(0);
        if here >= self.limits.connections_per_address {
            state.refuse(None, address, "too many connections from this address".into());
            return None;
        }
        let arriving = state.arriving.len();
        // Who says nothing never takes the place of all others.
        if arriving >= self.limits.connections.div_ceil(2)
            || arriving + state.clients.len() >= self.limits.connections
        {
            state.refuse(None, address, "the relay is full".into());
            return None;
        }
        *state.by_network.entry(network(address)).or_default() += 1;
        let number = state.next;
        state.next += 1;
        let (undecided, decided) = tokio::sync::oneshot::channel();
        state.arriving.insert(number, Arrival { address, _undecided: undecided });
        Some(Place { gate: Arc::clone(self), number, decided })
    }

    /// Why an endpoint is not admitted; `None` if it is.
    fn reason(&self, id: EndpointId, token: Option<&str>) -> Option<&'static str> {
        let known = token.map(|token| blake3::hash(token.as_bytes()));
        if self.open
            || self.allow.contains(&id)
            || known.is_some_and(|known| self.tokens.contains(&known))
        {
            return None;
        }
        Some(match token {
            Some(_) if !self.tokens.is_empty() => "the token is not one of this relay",
            None if !self.tokens.is_empty() => "this relay asks for a token",
            _ => "this relay does not know the endpoint",
        })
    }

    /// What is known now.
    pub(super) fn picture(&self) -> Picture {
        let state = self.state();
        let mut clients: Vec<_> = state.clients.values().cloned().collect();
        clients.sort_by_key(|client| client.since);
        Picture {
            clients,
            arriving: state.arriving.len(),
            refused: state.refused,
            refusals: state.refusals.iter().rev().cloned().collect(),
        }
    }
}

/// What is counted as one address: of the newer kind whoever has one has the whole network.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        IpAddr::V4(_) => address,
    }
}

impl AccessControl for Gate {
    async fn on_connect(&self, request: &ClientRequest) -> Verdict {
        let id = EndpointId::from_bytes(*request.endpoint_id().as_bytes());
        let reason = self.reason(id, request.auth_token().as_deref());
        let number =
            request.headers().get(NUMBER).and_then(|value| value.to_str().ok()?.parse().ok());
        let mut state = self.state();
        let Some(arrival) = number.and_then(|number: u64| state.arriving.remove(&number)) else {
            return Verdict::Deny { reason: Some("it took too long to connect".into()) };
        };
        let address = arrival.address;
        if let Some(reason) = reason {
            state.leave(address);
            state.refuse(Some(id), address, reason.into());
            return Verdict::Deny { reason: Some(format!("{reason} (endpoint {id})")) };
        }
        info!(%id, %address, "an endpoint connected");
        let client = Client { id, address, since: Instant::now() };
        state.clients.insert(request.connection_id(), client);
        Verdict::Allow
    }

    fn on_disconnect(&self, _: iroh::EndpointId, connection: ConnectionId) {
        let mut state = self.state();
        if let Some(client) = state.clients.remove(&connection) {
            state.leave(client.address);
            info!(id = %client.id, address = %client.address, "an endpoint left");
        }
    }
}

impl State {
    fn leave(&mut self, address: IpAddr) {
        let network = network(address);
        if let Some(count) = self.by_network.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                self.by_network.remove(&network);
            }
        }
    }

    fn refuse(&mut self, id: Option<EndpointId>, address: IpAddr, reason: String) {
        warn!(id = id.map(tracing::field::display), %address, reason, "refused");
        self.refused += 1;
        if self.refusals.len() == REMEMBERED {
            self.refusals.pop_front();
        }
        self.refusals.push_back(Refusal { id, address, reason, at: Instant::now() });
    }
}

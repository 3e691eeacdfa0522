//! Who is a peer: whoever is on the list, and whoever knows the group's secret. Nobody else.
//!
//! Who they are is proven by the keys with which they connect. Right after, each side says on the first stream,
//! in 32 bytes, that it knows the secret of the group, or zeros: BLAKE3, keyed with a key derived from the secret,
//! over the role and keying material of this one connection, so that a proof is of no use on any other. Material and
//! certificates name both sides, so the proof does too.

use std::collections::HashMap;
use std::fmt;

use iroh::endpoint::{Connection, VarInt};
use proxystore::wire::EndpointId;
use proxystore::{Error, ErrorKind, Result};

use crate::config::{Access, Config};

/// Why a connection was closed, for the other side.
pub(super) mod code {
    use super::VarInt;

    /// The other side is no peer of this one.
    pub(in crate::peer) const REFUSED: VarInt = VarInt::from_u32(1);
    /// This side is stopping.
    pub(in crate::peer) const STOPPING: VarInt = VarInt::from_u32(2);
    /// Nobody used it.
    pub(in crate::peer) const IDLE: VarInt = VarInt::from_u32(3);
    /// What the other side may do has changed.
    pub(in crate::peer) const CHANGED: VarInt = VarInt::from_u32(4);
}

/// Length of what each side says first, bytes.
pub(super) const PROOF: usize = 32;

/// Secrets are guessed without asking anybody, so short ones are none.
const SHORTEST_SECRET: usize = 16;

/// Who proves something.
#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    /// Who connected.
    Dialler,
    /// Who was connected to.
    Listener,
}

impl Role {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Dialler => b"proxystore peers 1: dialler",
            Self::Listener => b"proxystore peers 1: listener",
        }
    }
}

/// Who is admitted, and to do what.
pub(super) struct Admission {
    /// The name of this endpoint, for commands that are recommended.
    own: String,
    allowed: HashMap<EndpointId, (String, Access)>,
    /// Derived from the secret.
    group: Option<[u8; 32]>,
}

impl Admission {
    /// As the configuration says.
    pub(super) fn new(config: &Config) -> Result<Self> {
        let (own, config) = (config.name.clone(), &config.peers);
        let secret = config.group_secret.as_str();
        if !secret.is_empty() && secret.len() < SHORTEST_SECRET {
            return Err(Error::new(ErrorKind::Config, "admit peers", "the group secret is too short")
                .with("characters", secret.len())
                .with_hint("write 16 characters or more that nobody guesses as `group_secret`, the same at all its endpoints"));
        }
        let group = (!secret.is_empty()).then(|| {
            blake3::derive_key("proxystore 2026-11 endpoint group secret", secret.as_bytes())
        });
        let mut allowed = HashMap::new();
        for peer in &config.allow {
            let id = peer.id.parse::<EndpointId>()?;
            allowed.insert(id, (peer.name.clone(), peer.access));
        }
        Ok(Self { own, allowed, group })
    }

    /// What a peer is called here: its name, or the beginning of its id.
    pub(super) fn name(&self, peer: &EndpointId) -> String {
        match self.allowed.get(peer) {
            Some((name, _)) if !name.is_empty() => name.clone(),
            _ => peer.short(),
        }
    }

    /// The command that admits a peer here.
    pub(super) fn command(&self, peer: &EndpointId) -> String {
        let own = if self.own.is_empty() { "NAME" } else { &self.own };
        format!("proxystore endpoint trust {own} {peer}")
    }

    /// Those on the list.
    pub(super) fn listed(&self) -> impl Iterator<Item = EndpointId> {
        self.allowed.keys().copied()
    }

    /// Whether it makes sense to connect to an endpoint: it is on the list, or may know the secret.
    pub(super) fn check(&self, peer: &EndpointId) -> Result<()> {
        if self.allowed.contains_key(peer) || self.group.is_some() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Permission, "ask a peer", "it is no peer of this endpoint")
            .with("peer", peer)
            .with_hint(format!(
                "run `{}`, or give both the same `group_secret`",
                self.command(peer)
            )))
    }

    /// Why a connection is to be closed that was admitted before, if it is.
    pub(super) fn ends(
        &self,
        before: &Self,
        peer: &EndpointId,
        access: Access,
    ) -> Option<(VarInt, &'static str)> {
        let listed = self.allowed.get(peer).map(|(_, access)| *access);
        let proven = before.group.is_some() && !before.allowed.contains_key(peer);
        match listed {
            Some(now) if now == access => None,
            None if proven && self.group == before.group => None,
            None if self.group.is_none() => {
                Some((code::REFUSED, "you are no peer of this endpoint any more"))
            }
            _ => Some((code::CHANGED, "what you may do has changed: connect again")),
        }
    }

    /// What a side says first: the proof that it knows the secret, or zeros.
    pub(super) fn proof(&self, role: Role, connection: &Connection) -> Result<[u8; PROOF]> {
        let Some(group) = &self.group else { return Ok([0; PROOF]) };
        let mut material = [0; 64];
        connection.export_keying_material(&mut material, role.label(), b"").map_err(|_none| {
            Error::new(ErrorKind::Io, "greet a peer", "the connection has no keying material")
        })?;
        let mut hasher = blake3::Hasher::new_keyed(group);
        hasher.update(role.label());
        hasher.update(&material);
        Ok(*hasher.finalize().as_bytes())
    }

    /// What the other side may do here, if it is admitted: as the list says, or everything if it knows the secret.
    pub(super) fn admits(
        &self,
        peer: &EndpointId,
        role: Role,
        proof: &[u8; PROOF],
        connection: &Connection,
    ) -> Result<Option<Access>> {
        if let Some((_, access)) = self.allowed.get(peer) {
            return Ok(Some(*access));
        }
        if self.group.is_none() {
            return Ok(None);
        }
        let expected = blake3::Hash::from_bytes(self.proof(role, connection)?);
        Ok((expected == *proof).then_some(Access::Full)) // compares in constant time
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("allowed", &self.allowed).finish_non_exhaustive()
    }
}

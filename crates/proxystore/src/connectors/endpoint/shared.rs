//! Shared memory with a daemon on the same host: a session that is the daemon's, joined when it is first
//! needed.

use std::sync::Arc;

use super::daemons::{Call, Daemons};
use super::link::Daemon;
use crate::connectors::shm::ShmConnector;
use crate::connectors::{Connector, ConnectorConfig};
use crate::error::Result;
use crate::key::Key;
use crate::wire::Shared;

/// What this process has of the session.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// The session's URL, and the connector to it; none where it could not be joined.
    joined: Option<(String, Option<Arc<ShmConnector>>)>,
}

impl Daemon {
    /// Whether an object of this size should go through shared memory.
    pub(super) fn shares(&self, size: u64) -> bool {
        self.welcome.shared.is_some() && size >= self.welcome.shared_from.max(1)
    }
}

impl Daemons {
    /// The session with the daemon that is asked, if there is one and it can be joined.
    pub(super) fn session(&self, call: Call) -> Result<Option<Arc<ShmConnector>>> {
        let daemon = self.daemon(call)?;
        let Some(url) = &daemon.welcome.shared else { return Ok(None) };
        let mut session = self.shared();
        match &session.joined {
            Some((joined, connector)) if joined == url => return Ok(connector.clone()),
            _ => {}
        }
        // Where it cannot be had, everything goes through the socket.
        let connector = ShmConnector::open(&ConnectorConfig::new(url)).ok().map(Arc::new);
        session.joined = Some((url.clone(), connector.clone()));
        Ok(connector)
    }

    /// Uses the session no more: the daemon does not see what is put there.
    pub(super) fn forsake_session(&self) {
        if let Some((_, connector)) = &mut self.shared().joined {
            *connector = None;
        }
    }

    /// Leaves the session. Its objects are the daemon's.
    pub(super) fn leave_session(&self) {
        let joined = self.shared().joined.take();
        if let Some((_, Some(connector))) = joined {
            let _ = connector.close(false); // what is left is swept by others
        }
    }
}

/// The key of an object in the session.
pub(super) fn key_of(shared: &Shared) -> Key {
    Key::new(shared.id.as_str(), shared.generation, shared.size)
}

/// Where an object is that was put there.
pub(super) fn shared_of(key: &Key) -> Shared {
    Shared { id: key.id().to_owned(), generation: key.generation(), size: key.size() }
}

//! Who frees an object that came by a broker which delivers until acknowledged.
//!
//! The object has to stay until its event is acknowledged, else the event would be delivered again
//! and find nothing. So its proxy does not evict it when it is resolved; acknowledging does. A proxy
//! that was not resolved here by then, or was sent elsewhere, has still to be used: it frees the
//! object itself, as proxies of evicted objects do, wherever it is resolved first.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::codec::Decode;
use crate::error::Result;
use crate::facts::Facts;
use crate::fork;
use crate::proxy::Factory;
use crate::reference::Reference;
use crate::store::StoreFactory;
use crate::view::View;

/// The right to free an object, and the duty.
#[derive(Debug)]
pub struct Claim {
    reference: Reference,
    state: Mutex<State>,
    /// A forked child frees nothing: the item is its parent's.
    process: u64,
}

#[derive(Debug, Default)]
struct State {
    proxy: ProxyState,
    acknowledged: bool,
    freed: bool,
}

/// What became of the proxy; the later ones count more.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ProxyState {
    #[default]
    Unused,
    /// Resolved here, or gone.
    Done,
    /// Sent to another process.
    Sent,
}

impl Claim {
    pub(super) fn new(reference: Reference) -> Self {
        Self { reference, state: Mutex::default(), process: fork::generation() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The proxy was resolved in this process.
    ///
    /// # Errors
    /// What the channel fails with, where the object is to be freed now.
    pub fn resolved(&self) -> Result<()> {
        self.note(|state| state.proxy = state.proxy.max(ProxyState::Done))
    }

    /// The proxy was sent to another process, which frees the object.
    pub fn sent(&self) {
        if self.process != fork::generation() {
            return;
        }
        self.lock().proxy = ProxyState::Sent;
    }

    /// The reference for whoever uses the object before the event is acknowledged, and answers: it
    /// frees nothing, acknowledging does.
    ///
    /// # Errors
    /// What the channel fails with, where the object is to be freed now.
    pub fn lend(&self) -> Result<Reference> {
        self.resolved()?;
        Ok(Reference { evict: false, share: None, ..self.reference.clone() })
    }

    /// The last proxy of this process is gone. Errors are lost.
    pub fn dropped(&self) {
        let _ = self.resolved(); // there is nobody left to resolve it
    }

    /// The event was dealt with.
    ///
    /// # Errors
    /// What the channel fails with, where the object is to be freed now.
    pub fn acknowledged(&self) -> Result<()> {
        self.note(|state| state.acknowledged = true)
    }

    fn note(&self, change: impl FnOnce(&mut State)) -> Result<()> {
        if self.process != fork::generation() {
            return Ok(());
        }
        let mut state = self.lock();
        change(&mut state);
        let is_done = state.acknowledged && state.proxy == ProxyState::Done;
        if !is_done || std::mem::replace(&mut state.freed, true) {
            return Ok(());
        }
        drop(state);
        let freed = self.free();
        if freed.is_err() {
            self.lock().freed = false; // whoever tries again may be luckier
        }
        freed
    }

    fn free(&self) -> Result<()> {
        StoreFactory::from_reference(self.reference.clone()).store()?.free(&self.reference)
    }
}

/// Fetches an object whose freeing is a matter of its event's.
#[derive(Debug)]
pub(super) struct ClaimedFactory {
    factory: StoreFactory,
    claim: Arc<Claim>,
}

impl ClaimedFactory {
    pub(super) fn new(reference: Reference, claim: Arc<Claim>) -> Self {
        Self { factory: StoreFactory::from_reference(reference), claim }
    }
}

impl<T: Decode + Send + Sync + 'static> Factory<T> for ClaimedFactory {
    fn resolve(&self) -> Result<Arc<T>> {
        let target = self.factory.fetch_once()?;
        self.claim.resolved()?;
        Ok(target)
    }

    fn reference(&self) -> Result<Reference> {
        self.claim.sent();
        Factory::<T>::reference(&self.factory)
    }

    fn facts(&self) -> Facts {
        self.factory.reference().facts.clone() // nothing is sent
    }

    fn view(&self) -> Result<View> {
        self.factory.view()
    }
}

impl Drop for ClaimedFactory {
    fn drop(&mut self) {
        self.claim.dropped();
    }
}

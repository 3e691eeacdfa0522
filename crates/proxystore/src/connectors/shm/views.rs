//! Kept views: read-only mappings of recycled segments, page tables and all.
//!
//! Reading through a view that was used before faults no page. A view is not a use and not a
//! pin: nobody looks at its bytes except through a buffer that also holds a pin.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::OFlags;

use super::layout::{Name, State, TAG_AT, Tag};
use super::session::Session;
use super::sys::Mapping;

/// How many views a process keeps of one session.
const MOST: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Views {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    views: HashMap<String, View>,
    clock: u64,
}

#[derive(Debug)]
struct View {
    mapping: Arc<Mapping>,
    used: u64,
}

impl Views {
    /// The view of the file of a segment, made if there is none yet.
    pub(super) fn of(
        &self,
        session: &Session,
        name: Name,
        size: u64,
    ) -> rustix::io::Result<Arc<Mapping>> {
        let file = name.file();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.clock += 1;
        let clock = inner.clock;
        if let Some(view) = inner.views.get_mut(&file) {
            view.used = clock;
            return Ok(Arc::clone(&view.mapping));
        }
        // A new one is rare, so this is the time to drop those of segments that are gone.
        inner.views.retain(|_, view| !is_dead(&view.mapping));
        if inner.views.len() >= MOST {
            let oldest = inner.views.iter().min_by_key(|(_, view)| view.used);
            if let Some(name) = oldest.map(|(name, _)| name.clone()) {
                inner.views.remove(&name);
            }
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        // A description of its own, without a lock, or else the view would be a pin.
        let opened = session.open_file(&file, OFlags::RDONLY)?;
        let mapping = Arc::new(Mapping::shared(opened, 0, size)?);
        inner.views.insert(file, View { mapping: Arc::clone(&mapping), used: clock });
        Ok(mapping)
    }
}

fn is_dead(mapping: &Mapping) -> bool {
    Tag::from_word(mapping.word(TAG_AT).load(Ordering::Relaxed)).state == State::Dead
}

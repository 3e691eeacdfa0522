//! Copies of peers' objects, as many as were allowed. A generation of an object never changes, so a copy is as good; it
//! may outlive the object, whose peer is not asked.

use std::collections::VecDeque;
use std::sync::Mutex;

use bytes::Bytes;
use lru::LruCache;
use proxystore::wire::{EndpointId, Name, Stat};

use super::dial::lock;

/// The copies, those longest not used first to go.
#[derive(Debug)]
pub(super) struct Cache {
    limit: u64,
    copies: Mutex<Copies>,
}

#[derive(Debug)]
struct Copies {
    by_name: LruCache<Name, (Stat, VecDeque<Bytes>)>,
    bytes: u64,
}

impl Cache {
    pub(super) fn new(limit: u64) -> Self {
        let copies = Copies { by_name: LruCache::unbounded(), bytes: 0 };
        Self { limit, copies: Mutex::new(copies) }
    }

    /// Whether there can be any copies.
    pub(super) fn is_on(&self) -> bool {
        self.limit > 0
    }

    /// Whether there is room for an object of this size, once others are gone.
    pub(super) fn takes(&self, size: u64) -> bool {
        self.is_on() && size <= self.limit
    }

    /// The copy of a generation of an object.
    pub(super) fn get(&self, name: &Name) -> Option<(Stat, VecDeque<Bytes>)> {
        lock(&self.copies).by_name.get(name).cloned()
    }

    /// Keeps a copy that is whole.
    pub(super) fn put(&self, name: Name, stat: Stat, pieces: VecDeque<Bytes>) {
        if name.generation == 0 || !self.takes(stat.size) {
            return;
        }
        let mut copies = lock(&self.copies);
        if let Some((old, _)) = copies.by_name.put(name, (stat, pieces)) {
            copies.bytes -= old.size;
        }
        copies.bytes += stat.size;
        while copies.bytes > self.limit {
            let Some((_, (oldest, _))) = copies.by_name.pop_lru() else { break };
            copies.bytes -= oldest.size;
        }
    }

    /// Forgets what this site itself changes at a peer.
    pub(super) fn forget(&self, peer: &EndpointId, which: impl Fn(&str) -> bool) {
        if !self.is_on() {
            return;
        }
        let mut copies = lock(&self.copies);
        let gone: Vec<Name> = copies
            .by_name
            .iter()
            .filter(|(name, _)| name.endpoint == *peer && which(&name.id))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            if let Some((stat, _)) = copies.by_name.pop(&name) {
                copies.bytes -= stat.size;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(id: &str, generation: u64) -> Name {
        Name { endpoint: EndpointId::from_bytes([1; 32]), id: id.into(), generation }
    }

    fn put(cache: &Cache, id: &str, size: u64) {
        let stat = Stat { generation: 1, size, hash: None };
        cache.put(name(id, 1), stat, [Bytes::from(vec![0; size as usize])].into());
    }

    #[test]
    fn the_longest_unused_goes_first_and_the_bound_holds() {
        let cache = Cache::new(10);
        for id in ["a", "b"] {
            put(&cache, id, 5);
        }
        assert!(cache.get(&name("a", 1)).is_some());
        put(&cache, "c", 4);
        assert!(cache.get(&name("b", 1)).is_none());
        assert!(cache.get(&name("a", 1)).is_some() && cache.get(&name("c", 1)).is_some());
        put(&cache, "large", 11);
        assert!(cache.get(&name("large", 1)).is_none());
        put(&cache, "d", 10);
        assert!(cache.get(&name("a", 1)).is_none());
        assert_eq!(lock(&cache.copies).bytes, 10);
        cache.forget(&EndpointId::from_bytes([1; 32]), |id| id == "d");
        assert_eq!(lock(&cache.copies).bytes, 0);
    }
}

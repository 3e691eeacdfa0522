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
    /// By names without generation: the one that was fetched last is kept.
    by_name: LruCache<Name, Copy>,
    bytes: u64,
}

type Copy = (Stat, VecDeque<Bytes>);

/// What a copy takes beside its bytes, or so.
const OVERHEAD: u64 = 512;

impl Copies {
    fn put(&mut self, name: Name, copy: Copy) {
        self.bytes += taken(&copy);
        if let Some(old) = self.by_name.put(name, copy) {
            self.bytes -= taken(&old);
        }
    }

    fn pop(&mut self, name: &Name) {
        if let Some(old) = self.by_name.pop(name) {
            self.bytes -= taken(&old);
        }
    }

    fn pop_oldest(&mut self) {
        if let Some((_, old)) = self.by_name.pop_lru() {
            self.bytes -= taken(&old);
        }
    }
}

fn taken((stat, _): &Copy) -> u64 {
    stat.size + OVERHEAD
}

fn any_generation(name: &Name) -> Name {
    Name { generation: 0, ..name.clone() }
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
        self.is_on() && size.saturating_add(OVERHEAD) <= self.limit
    }

    /// The copy of a generation of an object.
    pub(super) fn get(&self, name: &Name) -> Option<Copy> {
        if !self.is_on() {
            return None;
        }
        let mut copies = lock(&self.copies);
        let copy = copies.by_name.get(&any_generation(name));
        copy.filter(|(stat, _)| stat.generation == name.generation).cloned()
    }

    /// Keeps a copy that is whole.
    pub(super) fn put(&self, name: &Name, stat: Stat, pieces: VecDeque<Bytes>) {
        if name.generation == 0 || !self.takes(stat.size) {
            return;
        }
        let mut copies = lock(&self.copies);
        copies.put(any_generation(name), (stat, pieces));
        while copies.bytes > self.limit {
            copies.pop_oldest();
        }
    }

    /// Forgets the copy of an object, whatever its generation.
    pub(super) fn forget(&self, name: &Name) {
        if self.is_on() {
            lock(&self.copies).pop(&any_generation(name));
        }
    }

    /// Forgets all copies of a peer's objects whose ids begin so.
    pub(super) fn clear(&self, peer: &EndpointId, prefix: &str) {
        let mut copies = lock(&self.copies);
        let names = copies.by_name.iter().map(|(name, _)| name);
        let gone = |name: &&Name| name.endpoint == *peer && name.id.starts_with(prefix);
        let gone: Vec<Name> = names.filter(gone).cloned().collect();
        for name in gone {
            copies.pop(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(id: &str, generation: u64) -> Name {
        Name { endpoint: EndpointId::from_bytes([1; 32]), id: id.into(), generation }
    }

    fn put(cache: &Cache, id: &str, generation: u64, size: u64) {
        let stat = Stat { generation, size, hash: None };
        cache.put(&name(id, generation), stat, [Bytes::from(vec![0; size as usize])].into());
    }

    #[test]
    fn the_longest_unused_goes_first_and_the_bound_holds() {
        let cache = Cache::new(10_000);
        let has = |id| cache.get(&name(id, 1)).is_some();
        for id in ["a", "b"] {
            put(&cache, id, 1, 4_000);
        }
        assert!(has("a"));
        put(&cache, "c", 1, 4_000);
        assert!(!has("b") && has("a") && has("c"));
        put(&cache, "large", 1, 9_900);
        assert!(!has("large"));
        put(&cache, "d", 1, 9_000);
        assert!(!has("a"));
        assert_eq!(lock(&cache.copies).bytes, 9_512);
        put(&cache, "d", 2, 5_000);
        assert!(!has("d") && cache.get(&name("d", 2)).is_some());
        cache.forget(&name("d", 3));
        assert_eq!(lock(&cache.copies).bytes, 0);
        for id in 0..1000 {
            put(&cache, &format!("small.{id}"), 1, 0);
        }
        assert_eq!(lock(&cache.copies).by_name.len(), 19);
        cache.clear(&EndpointId::from_bytes([1; 32]), "small.99");
        cache.clear(&EndpointId::from_bytes([2; 32]), "small.");
        assert_eq!(lock(&cache.copies).by_name.len(), 9);
        cache.clear(&EndpointId::from_bytes([1; 32]), "");
        assert_eq!(lock(&cache.copies).bytes, 0);
    }
}

//! Decoded objects by key, bounded by number and by bytes.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use crate::fork::PerProcess;
use crate::key::Key;
use crate::seal::Seal;

/// How much a cache may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// At most so many objects; 0 turns the cache off.
    pub entries: usize,
    /// At most so many bytes, as stored.
    pub bytes: usize,
}

impl Default for CacheLimits {
    /// 16 objects, 1 GiB.
    fn default() -> Self {
        Self { entries: 16, bytes: 1 << 30 }
    }
}

/// A cached object.
struct Entry {
    object: Arc<dyn Any + Send + Sync>,
    bytes: usize,
    /// That of the key by which it was read. Whoever sends references without it, or with another,
    /// could have the object of anybody taken for the sealed one.
    seal: Option<Seal>,
}

/// Keeps the objects used last; the oldest go first when a limit is reached.
///
/// Objects above the limit in bytes are not kept at all. A forked child starts empty.
pub struct Cache {
    limits: CacheLimits,
    state: PerProcess<Mutex<State>>,
}

struct State {
    objects: LruCache<Key, Entry>,
    bytes: usize,
}

impl Cache {
    /// An empty cache.
    pub fn new(limits: CacheLimits) -> Self {
        let fresh = || Mutex::new(State { objects: LruCache::unbounded(), bytes: 0 });
        Self { limits, state: PerProcess::new(fresh) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.get().lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object under a key, if it is cached as a `T`; marks it as used.
    pub fn get<T: Send + Sync + 'static>(&self, key: &Key) -> Option<Arc<T>> {
        if self.limits.entries == 0 {
            return None;
        }
        let mut state = self.state();
        let entry = state.objects.get(key).filter(|entry| entry.seal.as_ref() == key.seal())?;
        let object = Arc::clone(&entry.object);
        drop(state);
        object.downcast().ok()
    }

    /// Keeps an object that takes `bytes`.
    pub fn insert<T: Send + Sync + 'static>(&self, key: Key, object: Arc<T>, bytes: usize) {
        if self.limits.entries == 0 || bytes > self.limits.bytes {
            return;
        }
        let mut dropped = Vec::new(); // objects are dropped without the lock
        let mut state = self.state();
        let seal = key.seal().cloned();
        if let Some((_, old)) = state.objects.push(key, Entry { object, bytes, seal }) {
            state.bytes -= old.bytes;
            dropped.push(old);
        }
        state.bytes += bytes;
        while state.objects.len() > self.limits.entries || state.bytes > self.limits.bytes {
            let Some((_, old)) = state.objects.pop_lru() else {
                break;
            };
            state.bytes -= old.bytes;
            dropped.push(old);
        }
        drop(state);
        drop(dropped);
    }

    /// Whether there is an object under the key; does not mark it as used.
    pub fn contains(&self, key: &Key) -> bool {
        self.limits.entries != 0
            && self.state().objects.peek(key).is_some_and(|e| e.seal.as_ref() == key.seal())
    }

    /// Drops the object under a key; of a key without generation, the objects of all.
    pub fn remove(&self, key: &Key) {
        if self.limits.entries == 0 {
            return;
        }
        let mut removed = Vec::new(); // objects are dropped without the lock
        let mut state = self.state();
        let mut remove = |state: &mut State, key: &Key| {
            if let Some(old) = state.objects.pop(key) {
                state.bytes -= old.bytes;
                removed.push(old);
            }
        };
        if key.generation() == 0 {
            let same_id = state.objects.iter().map(|(known, _)| known);
            let same_id: Vec<Key> =
                same_id.filter(|known| known.id() == key.id()).cloned().collect();
            for known in same_id {
                remove(&mut state, &known);
            }
        } else {
            remove(&mut state, key);
        }
        drop(state);
        drop(removed);
    }

    /// Drops all objects.
    pub fn clear(&self) {
        let mut state = self.state();
        let all = std::mem::replace(&mut state.objects, LruCache::unbounded());
        state.bytes = 0;
        drop(state);
        drop(all);
    }

    /// Number of objects and their bytes.
    pub fn usage(&self) -> CacheLimits {
        let state = self.state();
        CacheLimits { entries: state.objects.len(), bytes: state.bytes }
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cache({:?})", self.limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> Key {
        Key::new(id, 1, 0)
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let cache = Cache::new(CacheLimits { entries: 2, bytes: 100 });
        for id in ["a", "a", "b"] {
            cache.insert(key(id), Arc::new(id.to_owned()), 1);
        }
        assert_eq!(cache.get::<String>(&key("a")).unwrap().as_str(), "a");
        cache.insert(key("c"), Arc::new("c".to_owned()), 1);
        assert!(cache.contains(&key("a")) && cache.contains(&key("c")));
        assert!(!cache.contains(&key("b")));
        assert_eq!(cache.usage(), CacheLimits { entries: 2, bytes: 2 });
    }

    #[test]
    fn bytes_are_bounded_too() {
        let cache = Cache::new(CacheLimits { entries: 10, bytes: 100 });
        cache.insert(key("a"), Arc::new(1), 60);
        cache.insert(key("b"), Arc::new(2), 60);
        assert!(!cache.contains(&key("a")));
        cache.insert(key("huge"), Arc::new(3), 101);
        assert!(cache.contains(&key("b")) && !cache.contains(&key("huge")));
        cache.remove(&key("b"));
        assert_eq!(cache.usage(), CacheLimits { entries: 0, bytes: 0 });
    }

    #[test]
    fn a_key_without_generation_removes_all_of_them() {
        let cache = Cache::new(CacheLimits { entries: 10, bytes: 100 });
        for (id, generation) in [("a", 1), ("a", 2), ("b", 1)] {
            cache.insert(Key::new(id, generation, 0), Arc::new(1), 10);
        }
        cache.remove(&Key::new("b", 2, 0));
        assert_eq!(cache.usage(), CacheLimits { entries: 3, bytes: 30 });
        cache.remove(&Key::latest("a"));
        assert_eq!(cache.usage(), CacheLimits { entries: 1, bytes: 10 });
    }

    #[test]
    fn what_another_seal_opened_is_not_found() {
        let cache = Cache::new(CacheLimits::default());
        let sealed = |secret| key("a").sealed(Some(Seal::new([secret; 32], None)));
        let pinned = key("a").sealed(Some(Seal::new([1; 32], Some([2; 32]))));
        cache.insert(key("a"), Arc::new("planted".to_owned()), 1);
        assert!(cache.get::<String>(&sealed(1)).is_none() && !cache.contains(&sealed(1)));
        cache.insert(sealed(1), Arc::new("genuine".to_owned()), 1);
        assert_eq!(cache.get::<String>(&sealed(1)).unwrap().as_str(), "genuine");
        for other in [key("a"), sealed(2), pinned] {
            assert!(cache.get::<String>(&other).is_none() && !cache.contains(&other));
        }
        assert_eq!(cache.usage(), CacheLimits { entries: 1, bytes: 1 });
    }

    #[test]
    fn no_entries_means_off() {
        let cache = Cache::new(CacheLimits { entries: 0, bytes: 100 });
        cache.insert(key("a"), Arc::new(1), 1);
        assert!(!cache.contains(&key("a")));
    }

    #[test]
    fn an_object_of_another_type_is_not_found() {
        let cache = Cache::new(CacheLimits::default());
        cache.insert(key("a"), Arc::new(1_i32), 1);
        assert!(cache.get::<String>(&key("a")).is_none());
    }
}

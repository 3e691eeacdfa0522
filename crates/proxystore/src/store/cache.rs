//! Decoded objects by key, bounded by number and by bytes.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use crate::fork::PerProcess;
use crate::key::Key;

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

type Object = Arc<dyn Any + Send + Sync>;

/// Keeps the objects used last; the oldest go first when a limit is reached.
///
/// Objects above the limit in bytes are not kept at all. A forked child starts empty.
pub struct Cache {
    limits: CacheLimits,
    state: PerProcess<Mutex<State>>,
}

struct State {
    objects: LruCache<Key, (Object, usize)>,
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
        let object = Arc::clone(&self.state().objects.get(key)?.0);
        object.downcast().ok()
    }

    /// Keeps an object that takes `bytes`.
    pub fn insert<T: Send + Sync + 'static>(&self, key: Key, object: Arc<T>, bytes: usize) {
        if self.limits.entries == 0 || bytes > self.limits.bytes {
            return;
        }
        let mut dropped = Vec::new(); // objects are dropped without the lock
        let mut state = self.state();
        if let Some((_, (old, size))) = state.objects.push(key, (object, bytes)) {
            state.bytes -= size;
            dropped.push(old);
        }
        state.bytes += bytes;
        while state.objects.len() > self.limits.entries || state.bytes > self.limits.bytes {
            let Some((_, (old, size))) = state.objects.pop_lru() else {
                break;
            };
            state.bytes -= size;
            dropped.push(old);
        }
        drop(state);
        drop(dropped);
    }

    /// Whether there is an object under the key; does not mark it as used.
    pub fn contains(&self, key: &Key) -> bool {
        self.limits.entries != 0 && self.state().objects.contains(key)
    }

    /// Drops the object under a key; of a key without generation, the objects of all.
    pub fn remove(&self, key: &Key) {
        if self.limits.entries == 0 {
            return;
        }
        let mut removed = Vec::new(); // objects are dropped without the lock
        let mut state = self.state();
        let mut remove = |state: &mut State, key: &Key| {
            if let Some((object, size)) = state.objects.pop(key) {
                state.bytes -= size;
                removed.push(object);
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

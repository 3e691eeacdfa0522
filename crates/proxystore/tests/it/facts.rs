//! Facts about objects, in the references of proxies and only where they cannot be out of date.

use std::collections::BTreeMap;
use std::sync::Arc;

use proxystore::codec::{Decode, Encode, MessagePack};
use proxystore::{Facts, Key, Proxy, Reference, Store};

fn store(name: &str) -> Store {
    Store::open(&format!("memory://facts-{name}")).unwrap()
}

/// The facts that arrive with a proxy, less when and where.
fn arrived<T: Decode + Send + Sync + 'static>(proxy: &Proxy<T>) -> Facts {
    let sent = rmp_serde::to_vec(proxy).unwrap();
    let received: Proxy<T> = rmp_serde::from_slice(&sent).unwrap();
    let facts = received.facts();
    assert!(!received.is_resolved());
    assert_eq!(facts, proxy.facts());
    Facts { created: None, origin: None, ..facts }
}

fn described<T: Encode + Decode + Send + Sync + 'static>(store: &Store, object: T) -> Facts {
    let proxy = store.proxy(object).unwrap();
    assert!(proxy.facts().created.is_some() && proxy.facts().origin.is_some());
    arrived(&proxy)
}

#[test]
fn arrays_containers_and_bytes_say_what_they_are() {
    let store = store("kinds");
    let array = Facts::of_array("<i4", &[2, 3], 24);
    let mut filled = store.empty::<i32>(&[2, 3]).unwrap();
    filled[5] = 1;
    assert_eq!(arrived(&store.proxy_array(filled).unwrap()), array);
    let elements = proxystore::codec::Array::from_vec(&[2, 3], vec![0_i32; 6]).unwrap();
    assert_eq!(described(&store, elements), array);
    assert_eq!(described(&store, vec![1.0_f32; 4]), Facts::of_array("<f4", &[4], 16));
    assert_eq!(described(&store, b"bytes".to_vec()), Facts::of_len(5));
    assert_eq!(described(&store, vec!["a".to_owned()]), Facts::of_len(1));
    assert_eq!(described(&store, BTreeMap::from([("a".to_owned(), 1)])), Facts::of_len(1));
    // Its length is another in each language; of the other, nothing is known.
    assert_eq!(described(&store, "text".to_owned()), Facts::default());
    assert_eq!(described(&store, MessagePack((1, 2))), Facts::default());
}

#[cfg(feature = "ndarray")]
#[test]
fn ndarrays_say_what_they_are() {
    let array = ndarray::Array2::<f64>::zeros((2, 3));
    assert_eq!(described(&store("nd"), array), Facts::of_array("<f8", &[2, 3], 48));
}

#[test]
fn every_way_to_make_a_proxy_of_an_object_knows_its_facts() {
    let store = store("ways");
    let five = Facts::of_len(5);
    let batch = store.proxy_batch(vec![b"bytes".to_vec(), b"b".to_vec()]).unwrap();
    assert_eq!(batch.iter().map(arrived).collect::<Vec<_>>(), [five.clone(), Facts::of_len(1)]);
    assert_eq!(arrived(&store.proxy_evicting(&b"bytes".to_vec()).unwrap()), five);
    assert_eq!(arrived(&store.locked_proxy(b"bytes".to_vec()).unwrap().unlock()), five);
}

#[test]
fn what_may_change_has_no_facts() {
    let store = store("changes");
    let key = store.put(&b"bytes".to_vec()).unwrap();
    assert!(store.proxy_from_key::<Vec<u8>>(&key).facts().is_empty());
    assert!(store.future::<Vec<u8>>().unwrap().proxy().facts().is_empty());

    let owner = store.owned_proxy(b"bytes".to_vec()).unwrap();
    assert!(owner.lend().facts().is_empty());
    let latest = Reference::new(Arc::clone(store.config()), Key::latest("k"));
    assert!(latest.with_facts(Facts::of_len(1)).facts.is_empty());
    assert!(Proxy::new(|| Ok(1)).facts().is_empty());
}

/// What Python writes for `store.proxy(np.zeros((2, 3), 'f4'))`.
const FROM_PYTHON: &[u8] = b"PXR\x01\x81\x01a\x82\x0amemory://a\x85\x02id\x86\x01\x01\
    \x09\x0dnumpy:ndarray\x0d\x18\x96\x02\x92\x02\x03\xa3<f4\x18\
    \xcf\x00\x00\x01\x8b\xcf\xe5\x68\x00\xa4host";

#[test]
fn facts_from_python_are_read() {
    let reference = Reference::decode(FROM_PYTHON).unwrap();
    let expected = Facts {
        created: Some(1_700_000_000_000),
        origin: Some("host".into()),
        ..Facts::of_array("<f4", &[2, 3], 24)
    };
    assert_eq!(reference.facts, expected);
    assert_eq!(reference.encode().unwrap(), FROM_PYTHON);
}

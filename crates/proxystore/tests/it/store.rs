//! Stores and proxies from the public API down to a channel.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use proxystore::codec::{ARRAY, Array, MessagePack, Order, array_meta};
use proxystore::connectors::PutOptions;
use proxystore::connectors::memory::MemoryConnector;
use proxystore::payload::Payload;
use proxystore::store::{CacheLimits, registry};
use proxystore::{
    Buffer, Connector, Error, ErrorKind, Key, Locked, Proxy, Reference, Result, Store, StoreConfig,
    messagepack,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Sample {
    label: String,
    energies: Vec<f64>,
}
messagepack!(Sample);

fn sample() -> Sample {
    Sample { label: "argon".into(), energies: vec![1.5, 2.5] }
}

fn memory(name: &str) -> Store {
    Store::open(&format!("memory://{name}")).unwrap()
}

fn travel<T>(proxy: &Proxy<T>) -> Proxy<T>
where
    T: proxystore::codec::Decode + Send + Sync + 'static,
{
    rmp_serde::from_slice(&rmp_serde::to_vec(proxy).unwrap()).unwrap()
}

/// What may be used from every thread; checked by the compiler.
#[test]
fn public_types_are_send_and_sync() {
    fn check<T: Send + Sync>() {}
    check::<Store>();
    check::<StoreConfig>();
    check::<Proxy<Sample>>();
    check::<Locked<Sample>>();
    check::<Reference>();
    check::<Key>();
    check::<Buffer>();
    check::<Array<f64>>();
    check::<Error>();
    check::<Arc<dyn Connector>>();
}

#[test]
fn every_codec_gives_back_what_was_put() {
    let store = memory("codecs");
    let key = store.put(&vec![1_u8, 2, 3]).unwrap();
    assert_eq!(store.get::<Vec<u8>>(&key).unwrap(), Some(vec![1, 2, 3]));
    assert_eq!(&store.get::<Buffer>(&key).unwrap().unwrap()[..], [1, 2, 3]);
    let key = store.put("grüße").unwrap();
    assert_eq!(store.get::<String>(&key).unwrap().unwrap(), "grüße");
    let key = store.put(&sample()).unwrap();
    assert_eq!(store.get::<Sample>(&key).unwrap(), Some(sample()));
    let key = store.put(&MessagePack((1, "two"))).unwrap();
    assert_eq!(store.get::<MessagePack<(i32, String)>>(&key).unwrap().unwrap().0.1, "two");
    let key = store.put(&vec![1_i32, -2]).unwrap();
    assert_eq!(store.get::<Vec<i32>>(&key).unwrap(), Some(vec![1, -2]));
    assert_eq!(store.get::<Array<i32>>(&key).unwrap().unwrap().shape(), [2]);
    let key = store.put(&Vec::<u8>::new()).unwrap();
    assert_eq!(store.get::<Vec<u8>>(&key).unwrap(), Some(vec![]));
}

#[cfg(feature = "ndarray")]
#[test]
fn ndarray_arrays_keep_shape_and_order() {
    use ndarray::{Array2, ShapeBuilder, s};
    let store = memory("ndarray");
    let c = Array2::from_shape_fn((3, 4), |(i, j)| f32::from(u16::try_from(10 * i + j).unwrap()));
    let mut f = Array2::zeros((3, 4).f());
    f.assign(&c);
    for array in [&c, &f] {
        let key = store.put(array).unwrap();
        assert_eq!(store.get::<Array2<f32>>(&key).unwrap().as_ref(), Some(array));
        let shared = store.get::<Array<f32>>(&key).unwrap().unwrap();
        assert_eq!(shared.view().unwrap(), array.view().into_dyn());
    }
    let gaps = c.slice(s![.., ..;2]);
    let key = store.put(&gaps).unwrap();
    assert_eq!(store.get::<Array2<f32>>(&key).unwrap(), Some(gaps.to_owned()));
    let wrong = store.get::<Array2<f64>>(&key).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Decode);
}

#[test]
fn a_travelling_proxy_is_small_and_resolves_once() {
    let store = memory("travel");
    let proxy = store.proxy(sample()).unwrap();
    assert!(proxy.is_resolved());
    let bytes = rmp_serde::to_vec(&proxy).unwrap();
    assert!(bytes.len() < 150, "{} bytes", bytes.len());
    let received = travel(&proxy);
    assert!(!received.is_resolved());
    assert!(format!("{received:?}").contains("unresolved"));
    assert_eq!(received.label, "argon");
    assert!(received.try_get().is_some());
    assert_eq!(received.into_inner().unwrap(), sample());
}

#[test]
fn other_formats_carry_proxies_too() {
    let store = memory("json");
    let reference = store.proxy(sample()).unwrap().reference().unwrap();
    let decoded = proxystore::Reference::decode(&reference.encode().unwrap()).unwrap();
    assert_eq!(*Proxy::<Sample>::from_reference(decoded), sample());
}

#[test]
fn threads_share_one_fetch() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let proxy = Proxy::new(move || {
        counter.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(50));
        Ok(7)
    });
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(*proxy.resolve().unwrap(), 7));
        }
    });
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[test]
fn a_failed_resolve_is_tried_again() {
    let calls = AtomicUsize::new(0);
    let proxy = Proxy::new(move || -> Result<i32> {
        match calls.fetch_add(1, Ordering::SeqCst) {
            0 => Err(Error::new(ErrorKind::Io, "fetch", "the first try fails")),
            _ => Ok(1),
        }
    });
    assert_eq!(proxy.resolve().unwrap_err().kind(), ErrorKind::Io);
    assert!(!proxy.is_resolved());
    assert_eq!(*proxy.resolve().unwrap(), 1);
}

#[test]
fn an_evicting_proxy_serves_all_threads_and_frees_the_object() {
    let store = memory("evicting");
    let proxy = travel(&store.proxy_evicting(&sample()).unwrap());
    let key = proxy.reference().unwrap().key;
    assert!(store.exists(&key).unwrap());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(proxy.resolve().unwrap().label, "argon"));
        }
    });
    assert!(!store.exists(&key).unwrap());
    let late = travel(&proxy);
    let error = late.resolve().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let text = error.to_string();
    assert!(text.contains("memory://evicting") && text.contains(key.id()), "{text}");
}

#[test]
fn a_background_fetch_is_waited_for() {
    let store = memory("background");
    let proxy = travel(&store.proxy(sample()).unwrap());
    proxy.resolve_async().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !proxy.is_resolved() && Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert!(proxy.is_resolved(), "nobody used the proxy, and still it resolved");
}

#[test]
fn locked_proxies_and_batches() {
    let store = memory("batch");
    let locked: Locked<Sample> = store.locked_proxy(sample()).unwrap();
    assert_eq!(locked.unlock().label, "argon");
    let proxies = store.proxy_batch(vec!["a".to_owned(), "b".to_owned()]).unwrap();
    let texts: Vec<String> = proxies.iter().map(|p| travel(p).into_inner().unwrap()).collect();
    assert_eq!(texts, ["a", "b"]);
    assert!(store.put_batch::<String>(&[]).unwrap().is_empty());
}

#[test]
fn proxies_of_local_functions_cannot_travel() {
    let proxy = Proxy::new(|| Ok(1));
    assert_eq!(proxy.reference().unwrap_err().kind(), ErrorKind::Unsupported);
    assert!(rmp_serde::to_vec(&proxy).is_err());
}

#[test]
fn the_cache_shares_and_forgets() {
    let connector = Arc::new(MemoryConnector::new("cached").unwrap());
    let store = Store::builder("cached", connector)
        .cache(CacheLimits { entries: 1, bytes: 1 << 20 })
        .metrics(true)
        .build();
    let (a, b) = (store.put("a").unwrap(), store.put("b").unwrap());
    let first = store.get_shared::<String>(&a).unwrap().unwrap();
    let second = store.get_shared::<String>(&a).unwrap().unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    store.get_shared::<String>(&b).unwrap();
    assert!(!store.cache().contains(&a) && store.cache().contains(&b));
    store.evict(&b).unwrap();
    assert_eq!(store.get::<String>(&b).unwrap(), None);
    let count = |name| store.metrics().unwrap().totals().find(|t| t.name == name).unwrap().count;
    assert_eq!((count("put"), count("get"), count("cache_hit"), count("missing")), (2, 3, 1, 1));
}

#[test]
fn a_name_in_use_on_another_channel_is_an_error_that_says_so() {
    let store = memory("taken");
    let other =
        Store::builder("memory://taken", Arc::new(MemoryConnector::new("other").unwrap())).build();
    assert_eq!(registry::register(&other).unwrap_err().kind(), ErrorKind::Config);
    let proxy = travel(&other.proxy("x".to_owned()).unwrap());
    let error = proxy.resolve().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    assert!(text.contains("memory://taken") && text.contains("memory://other"), "{text}");
    drop(store);
}

#[test]
fn a_closed_store_says_so_and_can_be_opened_again() {
    let store = memory("closing");
    let key = store.put("kept").unwrap();
    store.close(false).unwrap();
    store.close(false).unwrap();
    assert_eq!(store.get::<String>(&key).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(memory("closing").get::<String>(&key).unwrap().as_deref(), Some("kept"));
}

#[test]
fn asking_for_another_type_names_both_codecs() {
    let store = memory("types");
    let key = store.put("text").unwrap();
    let error = store.get::<Vec<u8>>(&key).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    let text = error.to_string();
    assert!(text.contains("raw bytes") && text.contains("UTF-8"), "{text}");
}

#[test]
fn an_array_whose_shape_does_not_fit_is_corrupt() {
    let store = memory("misfit");
    let meta = array_meta("<f8", &[3], Order::C).unwrap();
    let payload = Payload::new(ARRAY, meta).with_part(vec![0_u8; 16]);
    let key = store.put_payload(payload, &PutOptions::default()).unwrap();
    let error = store.get_shared::<Array<f64>>(&key).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains(&format!("store={}", store.name())), "{error}");
}

#[test]
fn eight_keys_are_fetched_at_the_same_time() {
    // Each fetch waits for the seven others: with a lock across fetches this would never end.
    let barrier = Arc::new(std::sync::Barrier::new(8));
    let proxies: Vec<Proxy<usize>> = (0..8)
        .map(|i| {
            let barrier = Arc::clone(&barrier);
            Proxy::new(move || {
                barrier.wait();
                Ok(i)
            })
        })
        .collect();
    std::thread::scope(|scope| {
        for proxy in &proxies {
            scope.spawn(|| proxy.resolve().unwrap());
        }
    });
    assert!(proxies.iter().all(Proxy::is_resolved));
}

#[test]
fn a_foreign_store_cannot_be_opened_by_an_unknown_scheme() {
    let error = Store::open("pigeon://loft").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.hint().unwrap().contains("memory:"));
}

#[test]
fn waiting_ends_when_the_object_comes() {
    let store = memory("waiting");
    let key = store.connector().new_key().unwrap();
    assert!(!store.wait(&key, Some(Duration::from_millis(5))).unwrap());
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| store.wait(&key, None));
        let payload = proxystore::codec::Encode::encode("late").unwrap();
        let options =
            proxystore::connectors::PutOptions { key: Some(key.clone()), ..Default::default() };
        store.put_payload(payload, &options).unwrap();
        assert!(waiter.join().unwrap().unwrap());
    });
    assert_eq!(*store.proxy_from_key::<String>(&key), "late");
}

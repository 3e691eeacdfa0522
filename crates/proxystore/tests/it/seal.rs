//! Sealed, signed, compressed and checksummed objects over real channels.

use std::sync::Arc;

use proptest::prelude::*;
use proxystore::connectors::file::FileConnector;
use proxystore::connectors::memory::MemoryConnector;
use proxystore::connectors::{Access, Connector, GetOptions, PutOptions};
use proxystore::payload::{Compression, Parts};
use proxystore::seal::{self, Identity};
use proxystore::store::{SealMode, Store};
use proxystore::{ErrorKind, Key, Proxy, Reference};

fn on<C: Connector>(channel: &Arc<C>) -> Arc<dyn Connector> {
    Arc::<C>::clone(channel)
}

fn channel(name: &str) -> Arc<MemoryConnector> {
    Arc::new(MemoryConnector::new(name).unwrap())
}

fn sealed(name: &str, channel: &Arc<MemoryConnector>) -> Store {
    Store::builder(name, on(channel)).seal(Some(SealMode::Sealed)).build()
}

fn stored(channel: &dyn Connector, key: &Key) -> Vec<u8> {
    channel.get(key, &GetOptions::default()).unwrap().unwrap().to_vec()
}

/// Stores bytes by hand, under a key with the seal of another.
fn plant(channel: &dyn Connector, bytes: &[u8], seal_of: &Key) -> Key {
    let key = channel.put(&Parts::from(bytes), &PutOptions::default()).unwrap();
    key.sealed(seal_of.seal().cloned())
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..len).map(step).collect()
}

/// Every way to store, and whether it takes a seal.
fn ways(name: &str) -> Vec<(Store, Arc<MemoryConnector>)> {
    let mut stores = Vec::new();
    for compression in [None, Some(Compression::Zstd), Some(Compression::Lz4)] {
        for mode in [None, Some(SealMode::Sealed), Some(SealMode::Signed)] {
            for checksums in [false, true] {
                let name = format!("{name}-{}", stores.len());
                let channel = channel(&name);
                let store = Store::builder(name, on(&channel))
                    .compression(compression)
                    .seal(mode)
                    .checksums(checksums)
                    .build();
                stores.push((store, channel));
            }
        }
    }
    stores
}

#[test]
fn objects_of_every_size_come_back_by_every_way() {
    for (store, channel) in ways("every-way") {
        for len in [0, 1, 1000, (1 << 18) - 100, 1 << 18, (1 << 18) + 1, 700_000] {
            for object in [vec![7_u8; len], noise(len)] {
                let key = store.put(&object).unwrap();
                store.cache().clear();
                assert_eq!(
                    store.get::<Vec<u8>>(&key).unwrap().as_ref(),
                    Some(&object),
                    "{store:?}"
                );
                let reader = store.reader(&key).unwrap().unwrap();
                let n = len as u64;
                for (a, b) in [(0, n), (n / 3, n / 2), (n.saturating_sub(1), n), (n / 2, n / 2)] {
                    let range = a as usize..b as usize;
                    assert_eq!(reader.read(0, a..b).unwrap()[..], object[range.clone()]);
                    let mut target = vec![0; range.len()];
                    reader.read_into(0, a..b, &mut target).unwrap();
                    assert_eq!(target, object[range]);
                }
                assert_eq!(reader.read(0, 0..n + 1).unwrap_err().kind(), ErrorKind::Config);
                store.evict(&key).unwrap();
            }
        }
        store.close(true).unwrap();
        drop(channel);
    }
}

#[test]
fn compressed_objects_are_smaller_and_ranges_of_them_move_little() {
    let channel = channel("smaller");
    let store =
        Store::builder("smaller", on(&channel)).compression(Some(Compression::Zstd)).build();
    let key = store.put(&vec![7_u8; 4 << 20]).unwrap();
    assert!(key.size() < 40_000, "{key:?}");
    // What does not become smaller is stored as it is.
    let key = store.put(&noise(1 << 20)).unwrap();
    assert!(key.size() <= (1 << 20) + 128, "{key:?}");
}

#[test]
fn a_sealed_object_altered_by_one_bit_anywhere_is_refused() {
    let channel = channel("bits");
    for store in [
        sealed("bits-sealed", &channel),
        Store::builder("bits-signed", on(&channel)).seal(Some(SealMode::Signed)).build(),
        Store::builder("bits-compressed", on(&channel))
            .seal(Some(SealMode::Sealed))
            .compression(Some(Compression::Lz4))
            .build(),
    ] {
        let key = store.put(&vec![b'x'; 1500]).unwrap();
        let bytes = stored(&*channel, &key);
        for bit in 0..bytes.len() * 8 {
            let mut altered = bytes.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let planted = plant(&*channel, &altered, &key);
            let error = store.get::<Vec<u8>>(&planted).unwrap_err();
            let refused = [ErrorKind::Tampered, ErrorKind::Corrupt, ErrorKind::Incompatible]
                .contains(&error.kind());
            assert!(refused, "bit {bit}: {error}");
            assert!(store.reader(&planted).and_then(|r| r.unwrap().read(0, 0..1500)).is_err());
            channel.evict(&planted).unwrap();
        }
    }
}

#[test]
fn truncation_appending_and_swapping_are_refused() {
    let channel = channel("swaps");
    let store = sealed("swaps", &channel);
    let (one, two) = (store.put(&noise(600_000)).unwrap(), store.put(&noise(600_000)).unwrap());
    let bytes = stored(&*channel, &one);
    for len in [0, 10, 64, 1000, bytes.len() - 1] {
        let planted = plant(&*channel, &bytes[..len], &one);
        assert!(store.get::<Vec<u8>>(&planted).is_err(), "cut to {len}");
    }
    let longer = [&bytes[..], b"x"].concat();
    assert!(store.get::<Vec<u8>>(&plant(&*channel, &longer, &one)).is_err());
    // Another object of the same store, and two chunks of one object in each other's place.
    let planted = plant(&*channel, &bytes, &two);
    assert_eq!(store.get::<Vec<u8>>(&planted).unwrap_err().kind(), ErrorKind::Tampered);
    let (head, chunk) = (96, (1 << 18) + 16);
    let mut swapped = bytes.clone();
    let (first, second) = swapped[head..].split_at_mut(chunk);
    first.swap_with_slice(&mut second[..chunk]);
    let planted = plant(&*channel, &swapped, &one);
    assert_eq!(store.get::<Vec<u8>>(&planted).unwrap_err().kind(), ErrorKind::Tampered);
    // An honest payload that is not sealed at all.
    let plain = Store::builder("plain-swaps", on(&channel)).build();
    let forged = stored(&*channel, &plain.put(&noise(10)).unwrap());
    let planted = plant(&*channel, &forged, &one);
    assert_eq!(store.get::<Vec<u8>>(&planted).unwrap_err().kind(), ErrorKind::Tampered);
    assert_eq!(store.reader(&planted).unwrap_err().kind(), ErrorKind::Tampered);
}

#[test]
fn a_sealed_object_needs_its_secret_and_hides_it() {
    let channel = channel("secret");
    let store = sealed("secret", &channel);
    let key = store.put("for your eyes only").unwrap();
    let bytes = stored(&*channel, &key);
    assert!(!bytes.windows(4).any(|bytes| bytes == b"eyes"));
    let bare = Key::new(key.id(), key.generation(), key.size());
    store.cache().clear();
    let error = store.get::<String>(&bare).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Sealed);
    assert!(error.to_string().contains("secret"), "{error}");
    let secret = key.seal().unwrap().secret();
    let hex = secret.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let reference = store.proxy("x".to_owned()).unwrap().reference().unwrap();
    for shown in [format!("{key:?} {key} {store:?} {error:?}"), format!("{reference:?}")] {
        assert!(!shown.contains(&hex) && !shown.contains(&format!("{secret:?}")), "{shown}");
    }
    // The same object is sealed anew each time.
    let again = stored(&*channel, &store.put("for your eyes only").unwrap());
    assert_ne!(bytes[64..], again[64..]);
}

#[test]
fn proxies_batches_copies_futures_and_owners_of_sealed_stores_work() {
    let channel = channel("patterns");
    let store = sealed("patterns", &channel);
    proxystore::store::registry::register(&store).unwrap();
    let travel = |proxy: &Proxy<String>| -> Proxy<String> {
        rmp_serde::from_slice(&rmp_serde::to_vec(proxy).unwrap()).unwrap()
    };
    let proxy = store.proxy("one".to_owned()).unwrap();
    store.cache().clear();
    assert_eq!(*travel(&proxy), "one");
    for proxy in store.proxy_batch(vec!["a".to_owned(), "b".to_owned()]).unwrap() {
        assert_eq!(travel(&proxy).len(), 1);
    }
    let key = store.put("copied").unwrap();
    let copy = store.copy(&key).unwrap().unwrap();
    assert_eq!(store.get::<String>(&copy).unwrap().as_deref(), Some("copied"));

    let future = store.future::<String>().unwrap();
    let waiting = travel(&future.proxy());
    future.set_result(&"later".to_owned()).unwrap();
    assert_eq!(*waiting, "later");
    let failing = store.future::<String>().unwrap();
    failing.set_error(&std::fmt::Error).unwrap();
    let error = failing.result(None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed, "{error}");
    assert!(failing.is_done().unwrap() && !failing.is_cancelled().unwrap());

    let options = PutOptions { key: Some(channel.new_key().unwrap()), ..PutOptions::default() };
    let error = store.put_with("x", &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "a key without a secret: {error}");
    store.close(true).unwrap();
}

#[test]
fn a_signed_reference_names_its_producer_and_pins_the_object() {
    seal::set_identity(Identity::from_seed([7; 32]).unwrap()).unwrap();
    let me = Identity::from_seed([7; 32]).unwrap().public_key();
    let channel = channel("signed");
    let store = Store::builder("signed", on(&channel)).seal(Some(SealMode::Signed)).build();
    let proxy = store.proxy(noise(300_000)).unwrap();
    let reference = proxy.reference().unwrap();
    let bytes = reference.encode().unwrap();
    assert!(bytes.len() <= 450, "{}", bytes.len());
    let reference = Reference::decode(&bytes).unwrap();
    assert_eq!(seal::verify(&reference).unwrap(), Some(me));
    // Evicting is up to the holder; all else is signed.
    assert!(seal::verify(&Reference { evict: true, ..reference.clone() }).is_ok());
    let elsewhere = Key::new("elsewhere", 1, 2).sealed(reference.key.seal().cloned());
    for altered in [
        Reference { key: elsewhere, ..reference.clone() },
        Reference { class: Some("os:system".to_owned()), ..reference.clone() },
        Reference { extension: Some(vec![1]), ..reference.clone() },
    ] {
        assert_eq!(seal::verify(&altered).unwrap_err().kind(), ErrorKind::Untrusted);
    }
    // Who holds the secret can write, but not what the reference was made of.
    let holder = Store::builder("holder", on(&channel)).seal(Some(SealMode::Sealed)).build();
    let forged_key = channel.new_key().unwrap().sealed(reference.key.seal().cloned());
    let options = PutOptions { key: Some(forged_key), ..PutOptions::default() };
    let forged = holder.put_with(&noise(300_000)[..], &options).unwrap();
    let forged = forged.sealed(reference.key.seal().cloned());
    assert_eq!(store.get::<Vec<u8>>(&forged).unwrap_err().kind(), ErrorKind::Tampered);
    store.cache().clear();
    assert!(store.get::<Vec<u8>>(&reference.key).unwrap().is_some());
}

#[test]
fn checksums_notice_altered_parts_whole_and_in_ranges() {
    let directory = tempfile::tempdir().unwrap();
    let channel = Arc::new(FileConnector::new(directory.path()).unwrap());
    let store = Store::builder("checked", on(&channel)).checksums(true).build();
    let object = noise(600_000);
    let key = store.put(&object).unwrap();
    let mut bytes = stored(&*channel, &key);
    let at = bytes.len() - 1;
    bytes[at] ^= 1;
    let planted = plant(&*channel, &bytes, &key);
    let error = store.get::<Vec<u8>>(&planted).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("checksum"), "{error}");
    let reader = store.reader(&planted).unwrap().unwrap();
    assert_eq!(reader.read(0, 0..1000).unwrap()[..], object[..1000]);
    assert_eq!(reader.read(0, 599_999..600_000).unwrap_err().kind(), ErrorKind::Corrupt);
    let mut target = [0; 1];
    let error = reader.read_into(0, 599_999..600_000, &mut target).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn envelopes_of_anything_never_panic(
        way in 0_usize..18, at in 0_usize..400, value in any::<u8>(), cut in 0_usize..400,
    ) {
        let (store, channel) = ways("anything").swap_remove(way);
        let key = store.put(&vec![1_u8; 2000]).unwrap();
        let mut bytes = stored(&*channel, &key);
        let len = bytes.len();
        bytes[at % len] = value;
        bytes.truncate(len - cut % len);
        let planted = plant(&*channel, &bytes, &key);
        let _ = store.get_payload(&planted, Access::ReadOnly);
        let _ = store.reader(&planted).map(|reader| reader.map(|reader| reader.read(0, 0..100)));
        store.close(true).unwrap();
    }
}

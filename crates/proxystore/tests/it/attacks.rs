//! What somebody may try who writes to the channel, or who writes references.

use std::sync::Arc;

use proxystore::codec::{Encode, Failure};
use proxystore::connectors::memory::MemoryConnector;
use proxystore::connectors::{Access, Connector, GetOptions, PutOptions};
use proxystore::patterns::Future;
use proxystore::payload::{Compression, Parts, Payload};
use proxystore::reference::Signature;
use proxystore::seal::{self, Identity};
use proxystore::store::{SealMode, StoreFactory};
use proxystore::view::LoadOptions;
use proxystore::{ErrorKind, Facts, Key, Proxy, Reference, Store};
use xxhash_rust::xxh3::xxh3_64;

fn on(name: &str) -> (Arc<MemoryConnector>, Store) {
    let channel = Arc::new(MemoryConnector::new(name).unwrap());
    let connector: Arc<dyn Connector> = Arc::<MemoryConnector>::clone(&channel);
    (channel, Store::builder(name, connector).build())
}

fn with_seal(channel: &Arc<MemoryConnector>, name: &str, mode: SealMode) -> Store {
    let connector: Arc<dyn Connector> = Arc::<MemoryConnector>::clone(channel);
    Store::builder(name, connector).seal(Some(mode)).build()
}

fn stored(channel: &MemoryConnector, key: &Key) -> Vec<u8> {
    channel.get(key, &GetOptions::default()).unwrap().unwrap().to_vec()
}

fn plant(channel: &MemoryConnector, bytes: &[u8], key: Option<&Key>) -> Key {
    let options = PutOptions { key: key.cloned(), ..PutOptions::default() };
    channel.put(&Parts::from(bytes), &options).unwrap()
}

/// An object as a store without protection writes it.
fn unsealed<T: Encode + ?Sized>(object: &T) -> Vec<u8> {
    object.encode().unwrap().frame().unwrap().parts().to_buffer().to_vec()
}

/// The head with its checksum made right.
fn mended(mut bytes: Vec<u8>) -> Vec<u8> {
    let len = u32::from_le_bytes(bytes[16..20].try_into().unwrap()) as usize;
    bytes[56..64].fill(0);
    let checksum = xxh3_64(&bytes[..len]);
    bytes[56..64].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// An object whose head speaks of more bytes than it has, in an envelope without seal.
fn longer_than_it_is(compression: u8) -> Vec<u8> {
    let framed = Payload::new(1, &[][..]).with_part(&b"hello"[..]).frame().unwrap();
    let mut inner = framed.parts().to_buffer().to_vec();
    let claimed: u64 = 1 << 40;
    let part_len = claimed - u64::from_le_bytes(inner[64..72].try_into().unwrap());
    inner[24..32].copy_from_slice(&claimed.to_le_bytes());
    inner[72..80].copy_from_slice(&part_len.to_le_bytes());
    let inner = mended(inner);
    let head_len: u32 = if compression == 0 { 64 } else { 68 };
    let mut bytes = inner[..8].to_vec();
    bytes.extend_from_slice(&[1, 0, 0, 0, 2, 0, 0, 0]);
    bytes.extend_from_slice(&head_len.to_le_bytes());
    bytes.extend_from_slice(&1_u32.to_le_bytes());
    bytes.extend_from_slice(&(u64::from(head_len) + inner.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&[18, compression, 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&(inner.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&[0; 16]);
    if compression != 0 {
        bytes.extend_from_slice(&(inner.len() as u32).to_le_bytes());
    }
    bytes.extend_from_slice(&inner);
    mended(bytes)
}

#[test]
fn a_head_that_speaks_of_more_than_the_envelope_has_is_damage_and_no_panic() {
    let (channel, store) = on("attack-length");
    for compression in [0, 1, 2] {
        let key = plant(&channel, &longer_than_it_is(compression), None);
        for error in [
            store.get::<Vec<u8>>(&key).unwrap_err(),
            store.reader(&key).unwrap_err(),
            store.view(&key).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        }
        assert!(store.failure(&key).unwrap().is_none());
    }
}

#[test]
fn memory_that_is_not_there_is_an_error_and_no_abort() {
    let (channel, store) = on("attack-memory");
    let framed = Payload::new(1, &[][..]).with_part(&b"hello"[..]).frame().unwrap();
    let mut bytes = framed.parts().to_buffer().to_vec();
    let start = u64::from_le_bytes(bytes[64..72].try_into().unwrap());
    bytes[24..32].copy_from_slice(&(1_u64 << 62).to_le_bytes());
    bytes[72..80].copy_from_slice(&((1_u64 << 62) - start).to_le_bytes());
    let key = plant(&channel, &mended(bytes), None);
    let view = store.view(&key).unwrap();
    view.load_payload(Access::Private, LoadOptions::default()).unwrap_err();
    let error = proxystore::Buffer::try_zeroed(u64::MAX).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
}

#[test]
fn a_compressed_object_cannot_claim_more_than_its_format_packs() {
    let (channel, _) = on("attack-bomb");
    let connector: Arc<dyn Connector> = Arc::<MemoryConnector>::clone(&channel);
    let store =
        Store::builder("attack-bomb", connector).compression(Some(Compression::Zstd)).build();
    let key = store.put(&vec![0_u8; 1 << 20]).unwrap();
    let mut bytes = stored(&channel, &key);
    bytes[40..48].copy_from_slice(&(5_u64 << 30).to_le_bytes()); // in five chunks of a gigabyte
    bytes[32] = 30;
    let planted = plant(&channel, &mended(bytes), None);
    for error in [store.get::<Vec<u8>>(&planted).unwrap_err(), store.view(&planted).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
}

/// The same key as the sealed object, without the seal or with another.
fn looser(key: &Key) -> [Key; 2] {
    let secret = *key.seal().unwrap().secret();
    let other = seal::Seal::new(secret, Some([9; 32]));
    [key.clone().sealed(None), key.clone().sealed(Some(other))]
}

#[test]
fn what_was_read_without_the_seal_is_not_taken_for_the_sealed_object() {
    let (channel, _) = on("attack-cache");
    let store = with_seal(&channel, "attack-cache", SealMode::Sealed);
    let key = store.put("genuine").unwrap();
    // Somebody sends a reference without seal while the channel has another object there.
    let [unsealed, other] = looser(&key);
    store.cache().insert(unsealed.clone(), Arc::new("planted".to_owned()), 7);
    assert_eq!(store.get::<String>(&key).unwrap().as_deref(), Some("genuine"));
    let error = store.get::<String>(&unsealed).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Sealed, "the cache does not open it either");
    assert_eq!(store.get::<String>(&other).unwrap_err().kind(), ErrorKind::Tampered);
}

#[test]
fn a_future_of_a_sealed_store_takes_no_unsealed_object_and_no_unsealed_failure() {
    let (channel, _) = on("attack-future");
    let store = with_seal(&channel, "attack-future", SealMode::Sealed);
    let forged = Failure { exception: Some(b"a pickle".to_vec()), ..Failure::new("E", "forged") };
    for planted in [unsealed(&forged), unsealed("forged")] {
        let future: Future<String> = store.future().unwrap();
        let key = future.reference().key.clone();
        plant(&channel, &planted, Some(&key.clone().sealed(None)));
        let copy = store.copy(&key).unwrap().unwrap();
        for error in [
            store.failure(&key).unwrap_err(),
            store.get::<String>(&key).unwrap_err(),
            store.get::<String>(&copy).unwrap_err(),
            store.view(&key).unwrap_err(),
            store.reader(&key).map(drop).unwrap_err(),
            future.result(None).unwrap_err(),
            future.proxy().view().unwrap_err(),
            future.proxy().resolve().cloned().unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Tampered, "{error}");
        }
    }
}

fn with_field(bytes: &[u8], tag: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.extend_from_slice(&[tag, value.len() as u8]);
    bytes.extend_from_slice(value);
    bytes
}

#[test]
fn a_reference_with_a_field_twice_or_with_two_objects_is_refused() {
    let (channel, _) = on("attack-fields");
    let store = with_seal(&channel, "attack-fields", SealMode::Sealed);
    let sealed = store.proxy("x".to_owned()).unwrap().reference().unwrap();
    let bytes = sealed.encode().unwrap();
    let plain = Reference { key: sealed.key.clone().sealed(None), ..sealed }.encode().unwrap();
    for (bytes, tag, value) in [
        (&bytes, 0x85, &b"other"[..]),
        (&bytes, 0x81, b"other"),
        (&bytes, 0x8e, &[1; 32]),
        (&bytes, 0x8c, b"an object inside, and a secret"),
        (&plain, 0x8f, &[1; 32]),
    ] {
        let error = Reference::decode(&with_field(bytes, tag, value)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{tag:#x}");
    }
    Reference::decode(&with_field(&plain, 0x8c, b"an object inside alone")).unwrap();
}

fn signed(name: &str) -> (Store, Reference) {
    seal::set_identity(Identity::from_seed([7; 32]).unwrap()).unwrap();
    let (channel, _) = on(name);
    let store = with_seal(&channel, name, SealMode::Signed);
    let mut reference = store.proxy("x".to_owned()).unwrap().reference().unwrap();
    reference.signature = None;
    reference.class = Some("builtins:str".to_owned());
    store.sign(&mut reference).unwrap();
    (store, reference)
}

#[test]
fn whatever_is_altered_in_a_signed_reference_breaks_its_signature() {
    let (_, reference) = signed("attack-altered");
    assert!(seal::verify(&reference).unwrap().is_some());
    let evicting = Reference { evict: true, ..reference.clone() };
    assert!(seal::verify(&evicting).unwrap().is_some(), "that is for whoever holds the proxy");
    let mut settings = (*reference.store).clone();
    settings.settings.insert("sites".to_owned(), proxystore::connectors::Value::List(Vec::new()));
    let signature = reference.signature.clone().unwrap();
    let by_another = Signature { producer: [1; 32], ..signature };
    for altered in [
        Reference { class: Some("os:system".to_owned()), ..reference.clone() },
        Reference { facts: Facts::of_len(3), ..reference.clone() },
        Reference { extension: Some(b"a pickle".to_vec()), ..reference.clone() },
        Reference { key: looser(&reference.key)[0].clone(), ..reference.clone() },
        Reference { key: looser(&reference.key)[1].clone(), ..reference.clone() },
        Reference { key: Key::new(reference.key.id(), 1, 0), ..reference.clone() },
        Reference { store: settings.into(), ..reference.clone() },
        Reference { unknown: vec![0x7e, 0], ..reference.clone() },
        Reference { signature: Some(by_another), ..reference.clone() },
    ] {
        let arrived = Reference::decode(&altered.encode().unwrap()).unwrap();
        assert_eq!(seal::verify(&arrived).unwrap_err().kind(), ErrorKind::Untrusted);
    }
}

#[test]
fn fields_of_a_later_version_travel_on_and_are_signed() {
    let (store, mut reference) = signed("attack-later");
    reference.unknown = vec![0x7e, 2, 1, 2, 0x7d, 0];
    reference.signature = None;
    store.sign(&mut reference).unwrap();
    let arrived = Reference::decode(&reference.encode().unwrap()).unwrap();
    assert_eq!(arrived, reference);
    assert!(seal::verify(&arrived).unwrap().is_some());
    let sent = Proxy::<String>::from_reference(arrived).reference().unwrap();
    assert!(seal::verify(&sent).unwrap().is_some());
}

#[test]
fn what_was_received_is_not_signed_anew() {
    let (store, reference) = signed("attack-anew");
    proxystore::store::registry::register(&store).unwrap();
    let unsigned = Reference { signature: None, ..reference };
    let received = Proxy::<String>::from_reference(unsigned);
    assert_eq!(received.resolve().unwrap(), "x");
    assert_eq!(received.reference().unwrap().signature, None);
    store.close(true).unwrap();
}

#[test]
fn the_name_of_a_store_does_not_tell_its_password_in_a_text() {
    let url = "redis://user:hush@host:1/0";
    let config = proxystore::StoreConfig::new(url, proxystore::ConnectorConfig::new(url));
    let text = Reference::new(config, Key::latest("k")).to_text().unwrap();
    let open = Reference::from_text(&text).unwrap();
    assert_eq!(open.store.name, "redis://host:1/0");
    assert!(open.left_out.credentials && !format!("{:?}", open.encode()).contains("hush"));
    assert!(!String::from_utf8_lossy(&open.encode().unwrap()).contains("hush"));
}

#[test]
fn views_keep_to_the_policy_of_the_reference_and_of_the_store() {
    let (channel, loose) = on("attack-sites");
    let connector = || -> Arc<dyn Connector> { Arc::<MemoryConnector>::clone(&channel) };
    for inline in [0, 1000] {
        let strict = Store::builder("attack-sites", connector())
            .sites(["*.far-away"])
            .inline_bytes(inline)
            .build();
        let proxy = strict.proxy("x".to_owned()).unwrap();
        let reference = proxy.reference().unwrap();
        let received = Proxy::<String>::from_reference(reference.clone());
        for view in [
            proxy.view(),
            received.view(),
            StoreFactory::of(&loose, reference.clone()).view(),
            StoreFactory::from_reference(reference).view(),
        ] {
            assert_eq!(view.unwrap_err().kind(), ErrorKind::Forbidden);
        }
    }
}

#[test]
fn a_view_says_that_the_secret_is_missing() {
    let (channel, _) = on("attack-secretless");
    let store = with_seal(&channel, "attack-secretless", SealMode::Sealed);
    let text = store.proxy("x".to_owned()).unwrap().to_text().unwrap();
    let error = Proxy::<String>::from_text(&text).unwrap().view().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Sealed);
    assert!(error.to_string().contains("to_secret_text"), "{error}");
}

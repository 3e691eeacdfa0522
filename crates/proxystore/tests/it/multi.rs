//! What is special about several channels as one: where objects go, and what travels.

use std::sync::Arc;

use proptest::prelude::*;
use proxystore::connectors::file::FileConnector;
use proxystore::connectors::memory::MemoryConnector;
use proxystore::connectors::multi::{
    MultiConnector, Part, PartConfig, Policy, RoutingError, config_of, split_key,
};
use proxystore::connectors::shm::ShmConnector;
use proxystore::connectors::{Connector, ConnectorConfig, GetOptions, PutOptions, Tags, open};
use proxystore::error::{Error, ErrorKind};
use proxystore::key::{Key, unique_id};
use proxystore::payload::Parts;
use proxystore::store::registry;
use proxystore::testkit::Counting;
use proxystore::{Proxy, Reference, Store};

fn memory() -> Arc<dyn Connector> {
    Arc::new(MemoryConnector::new(&unique_id().unwrap()).unwrap())
}

fn limited(priority: i64, min_size_bytes: u64, max_size_bytes: u64) -> Policy {
    Policy { priority, min_size_bytes, max_size_bytes, ..Policy::default() }
}

fn multi(parts: Vec<(&str, Arc<dyn Connector>, Policy)>) -> MultiConnector {
    let named = |(name, connector, policy): (&str, _, _)| (name.to_owned(), connector, policy);
    MultiConnector::new(parts.into_iter().map(named).collect()).unwrap()
}

fn put(connector: &dyn Connector, size: usize) -> Result<Key, Error> {
    connector.put(&Parts::from(&vec![1; size][..]), &PutOptions::default())
}

fn part_of(key: &Key) -> String {
    split_key(key).unwrap().0
}

fn routing_error(error: &Error) -> Option<RoutingError> {
    std::error::Error::source(error)?.downcast_ref().copied()
}

fn elsewhere() -> Policy {
    Policy { host_pattern: Some(vec!["no such host".to_owned()]), ..Policy::default() }
}

#[test]
fn priority_comes_first_and_then_the_order_of_definition() {
    let connector = multi(vec![
        ("c", memory(), limited(1, 0, u64::MAX)),
        ("a", memory(), limited(2, 0, 10)),
        ("b", memory(), limited(2, 0, 100)),
    ]);
    for (size, part) in [(0, "a"), (10, "a"), (11, "b"), (100, "b"), (101, "c")] {
        assert_eq!(part_of(&put(&connector, size).unwrap()), part, "{size} bytes");
    }
}

#[test]
fn an_object_nobody_takes_is_an_error_with_every_reason() {
    let tagged = Policy { superset_tags: vec!["gpu".to_owned()], ..Policy::default() };
    let connector = multi(vec![
        ("small", memory(), limited(0, 0, 10)),
        ("large", memory(), limited(0, 100, u64::MAX)),
        ("tagged", memory(), tagged),
        ("far", memory(), elsewhere()),
    ]);
    let error = put(&connector, 50).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(routing_error(&error), Some(RoutingError::NoPartTakesIt));
    for reason in [
        "small: max_size_bytes is 10",
        "large: min_size_bytes is 100",
        "tagged: superset_tags lack some of its [\"gpu\"]",
        "far: its host_pattern \"no such host\" does not match",
        "size=50",
    ] {
        assert!(error.to_string().contains(reason), "{reason}: {error}");
    }
    let error = put(&multi(vec![]), 1).unwrap_err();
    assert!(error.to_string().contains("it has none"), "{error}");
}

#[test]
fn the_failure_of_the_chosen_part_is_the_failure_of_the_put() {
    let (first, second) = (memory(), memory());
    first.close(false).unwrap();
    let connector = multi(vec![
        ("first", first, limited(1, 0, u64::MAX)),
        ("second", second, Policy::default()),
    ]);
    let error = put(&connector, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(error.to_string().contains("part=first"), "{error}");
}

#[test]
fn a_batch_that_fails_in_one_part_leaves_nothing_in_the_others() {
    let stored = Arc::new(MemoryConnector::new(&unique_id().unwrap()).unwrap());
    let counting = Counting::new(Arc::clone(&stored));
    let counts = counting.counter();
    let broken = memory();
    broken.close(false).unwrap();
    let connector = multi(vec![
        ("small", Arc::new(counting), limited(0, 0, 10)),
        ("large", broken, limited(0, 11, u64::MAX)),
    ]);
    let objects = [Parts::from(&[1; 5][..]), Parts::from(&[1; 50][..]), Parts::from(&[1; 6][..])];
    connector.put_batch(&objects, &PutOptions::default()).unwrap_err();
    assert_eq!((counts().puts, counts().evicts), (2, 2));

    let nobodys = multi(vec![("small", Arc::clone(&stored) as _, limited(0, 0, 10))]);
    nobodys.put_batch(&objects, &PutOptions::default()).unwrap_err();
    let keys = nobodys.put_batch(&objects[..1], &PutOptions::default()).unwrap();
    assert_eq!(keys.len(), 1);
}

#[test]
fn a_deferred_key_is_of_a_part_that_takes_any_size() {
    let connector = multi(vec![
        ("small", memory(), limited(2, 0, 10)),
        ("tagged", memory(), Policy { superset_tags: vec!["x".to_owned()], ..limited(2, 0, 10) }),
        ("large", memory(), limited(1, 100, u64::MAX)),
    ]);
    assert!(connector.capabilities().deferred_keys);
    let key = connector.new_key().unwrap();
    assert_eq!(part_of(&key), "large");
    // Whatever is put there in the end.
    let options = PutOptions { key: Some(key.clone()), ..PutOptions::default() };
    connector.put(&Parts::from(&b"x"[..]), &options).unwrap();
    assert!(connector.exists(&key).unwrap());

    let connector = multi(vec![("small", memory(), limited(0, 0, 10))]);
    assert!(!connector.capabilities().deferred_keys);
    let error = connector.new_key().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("the size is not known yet"), "{error}");
}

#[test]
fn memory_comes_from_the_part_that_takes_the_size() {
    let shm: Arc<dyn Connector> = Arc::new(ShmConnector::new(&unique_id().unwrap()).unwrap());
    let counting = Counting::new(Arc::clone(&shm));
    let counts = counting.counter();
    let connector = multi(vec![
        ("small", memory(), limited(1, 0, 1000)),
        ("large", Arc::new(counting), Policy::default()),
    ]);
    assert!(connector.capabilities().allocate);
    assert_eq!(connector.allocate(1000).unwrap().len(), 1000);
    assert_eq!(counts().allocates, 0, "ordinary memory");
    let mut inside = connector.allocate(100_000).unwrap();
    assert_eq!(counts().allocates, 1);
    inside.as_mut().unwrap().fill(7);
    let key = connector.put(&Parts::from(&inside[..]), &PutOptions::default()).unwrap();
    let found = connector.get(&key, &GetOptions::default()).unwrap().unwrap();
    assert_eq!(&found[..], &inside[..]);
    shm.close(true).unwrap();
}

#[test]
fn a_configuration_opens_the_parts_for_this_host_and_keeps_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let files = FileConnector::new(directory.path().join("objects")).unwrap();
    let connector = multi(vec![
        ("memory", memory(), limited(1, 0, 100)),
        ("files", Arc::new(files), Policy::default()),
        ("far", memory(), elsewhere()),
    ]);
    let key = put(&connector, 1000).unwrap();
    let mut config = connector.config();
    config.url.push_str(";strange=python:some.module.Connector");
    let again = open(&config).unwrap();
    assert_eq!(again.config(), config);
    assert!(again.exists(&key).unwrap());
    assert_eq!(part_of(&put(&*again, 10).unwrap()), "memory");

    for (part, why) in [
        ("far", "host_pattern \"no such host\" does not match"),
        ("strange", "no channels of kind \"python\""),
    ] {
        let error = again.exists(&Key::latest(format!("{part}:abc"))).unwrap_err();
        assert_eq!(routing_error(&error), Some(RoutingError::DormantPart));
        assert!(
            error.to_string().contains("dormant") && error.to_string().contains(why),
            "{error}"
        );
    }
    let error = again.exists(&Key::latest("nowhere:abc")).unwrap_err();
    assert_eq!(routing_error(&error), Some(RoutingError::UnknownPart));
    assert!(error.to_string().contains("memory, files, far, strange"), "{error}");
    again.close(true).unwrap();
}

#[test]
fn a_part_for_other_hosts_that_is_open_can_be_read() {
    let far = memory();
    let key = put(&far, 10).unwrap();
    let connector = multi(vec![("far", far, elsewhere())]);
    let id = format!("far:{}", key.id());
    assert!(connector.exists(&Key::new(id, key.generation(), key.size())).unwrap());
    assert!(put(&connector, 10).unwrap_err().to_string().contains("far: its host_pattern"));
}

#[test]
fn a_short_reference_opens_the_store_elsewhere() {
    let config = config_of(&[
        PartConfig {
            name: "small".to_owned(),
            channel: ConnectorConfig::new("shm://run7"),
            policy: limited(1, 0, 100_000),
        },
        PartConfig {
            name: "bulk".to_owned(),
            channel: ConnectorConfig::new("file:///scratch/run7"),
            policy: Policy::default(),
        },
    ]);
    let key = Key::new(format!("small:{}", unique_id().unwrap()), 1, 90_000);
    let reference = Reference::new(proxystore::StoreConfig::new("run7", config), key);
    let bytes = reference.encode().unwrap();
    assert!(bytes.len() < 250, "{} bytes", bytes.len());
    assert_eq!(Reference::decode(&bytes).unwrap(), reference);
}

#[test]
fn a_store_of_two_channels_is_opened_by_its_proxies() {
    let connector =
        multi(vec![("a", memory(), limited(1, 0, 1000)), ("b", memory(), Policy::default())]);
    let name = unique_id().unwrap();
    let store = Store::builder(name.as_str(), Arc::new(connector)).build();
    for text in ["short".to_owned(), "long ".repeat(1000)] {
        let proxy = store.proxy(text.clone()).unwrap();
        let bytes = proxy.reference().unwrap().encode().unwrap();
        let received = Proxy::<String>::from_reference(Reference::decode(&bytes).unwrap());
        assert_eq!(*received.resolve().unwrap(), text);
    }
    registry::get(&name).unwrap().close(true).unwrap();
}

#[test]
fn a_key_of_no_part_is_that_of_an_absent_object() {
    let connector = multi(vec![("a", memory(), Policy::default())]);
    let key = Key::latest("inside-a-reference");
    assert!(connector.get(&key, &GetOptions::default()).unwrap().is_none());
    assert!(!connector.exists(&key).unwrap());
    connector.evict(&key).unwrap();
    assert!(!connector.wait(&key, Some(std::time::Instant::now())).unwrap());
    let stored = put(&connector, 3).unwrap();
    let found = connector.get_batch(&[key.clone(), stored], &GetOptions::default()).unwrap();
    assert!(found[0].is_none() && found[1].is_some());
    let options = PutOptions { key: Some(key), ..PutOptions::default() };
    let error = connector.put(&Parts::from(&b"x"[..]), &options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[test]
fn names_are_checked() {
    for names in [vec![""], vec!["a", "a"]] {
        let part = |name: &&str| ((*name).to_owned(), memory(), Policy::default());
        let error = MultiConnector::new(names.iter().map(part).collect()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    }
    let broken = Policy { host_pattern: Some(vec!["(".to_owned()]), ..Policy::default() };
    let error = MultiConnector::new(vec![("a".to_owned(), memory(), broken)]).unwrap_err();
    assert!(error.to_string().contains("part=a"), "{error}");
}

fn tags() -> impl Strategy<Value = Vec<String>> {
    proptest::sample::subsequence(vec!["x", "y", "z"], 0..=3)
        .prop_map(|all| all.into_iter().map(str::to_owned).collect())
}

prop_compose! {
    fn policy()(
        priority in -1_i64..2,
        min_size_bytes in 0_u64..60,
        max_size_bytes in prop_oneof![0_u64..120, Just(u64::MAX)],
        subset_tags in tags(),
        superset_tags in tags(),
    ) -> Policy {
        Policy {
            priority, host_pattern: None, min_size_bytes, max_size_bytes, subset_tags, superset_tags,
        }
    }
}

/// Which part takes an object, written as the documentation says it.
fn model(policies: &[(Policy, bool)], size: u64, tags: &Tags) -> Option<usize> {
    let takes = |(policy, on): &(Policy, bool)| {
        *on && (policy.min_size_bytes..=policy.max_size_bytes).contains(&size)
            && tags.subset.iter().all(|tag| policy.subset_tags.contains(tag))
            && policy.superset_tags.iter().all(|tag| tags.superset.contains(tag))
    };
    let highest =
        policies.iter().filter(|part| takes(part)).map(|(policy, _)| policy.priority).max()?;
    policies.iter().position(|part| takes(part) && part.0.priority == highest)
}

proptest! {
    #[test]
    fn routing_agrees_with_the_model(
        policies in proptest::collection::vec((policy(), any::<bool>()), 0..5),
        objects in proptest::collection::vec((0_usize..130, tags(), tags()), 1..6),
    ) {
        let part = |(index, (policy, on)): (usize, &(Policy, bool))| {
            let connector = memory();
            Part {
                config: PartConfig {
                    name: index.to_string(),
                    channel: connector.config(),
                    policy: policy.clone(),
                },
                connector: on.then_some(connector),
                off: None,
            }
        };
        let connector =
            MultiConnector::of(policies.iter().enumerate().map(part).collect()).unwrap();
        for (size, subset, superset) in objects {
            let tags = Tags { subset, superset };
            let expected = model(&policies, size as u64, &tags);
            let options = PutOptions { tags, ..PutOptions::default() };
            let bytes = vec![9; size];
            match connector.put(&Parts::from(&bytes[..]), &options) {
                Ok(key) => {
                    prop_assert_eq!(Some(part_of(&key)), expected.map(|place| place.to_string()));
                    let found = connector.get(&key, &GetOptions::default()).unwrap().unwrap();
                    prop_assert_eq!(&found[..], &bytes[..]);
                }
                Err(error) => {
                    prop_assert_eq!(routing_error(&error), Some(RoutingError::NoPartTakesIt));
                    prop_assert_eq!(None, expected, "{}", error);
                }
            }
        }
        connector.close(true).unwrap();
    }
}

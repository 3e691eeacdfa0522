//! Sites, producers and credentials, in processes whose environment says what to believe.

use std::sync::Arc;

use proxystore::connectors::file::FileConnector;
use proxystore::patterns::{Future, OwnedProxy};
use proxystore::store::StoreFactory;
use proxystore::{Access, ErrorKind, Proxy, Reference, Store, StoreConfig};
use serde::Serialize;

use crate::process;

const NOWHERE: &str = "*.far-away";
const LAB: &str = "lab-?";

fn folder_store(name: &str, folder: &tempfile::TempDir, sites: &[&str], inline: usize) -> Store {
    let connector = Arc::new(FileConnector::new(folder.path()).unwrap());
    Store::builder(name, connector).sites(sites.iter().copied()).inline_bytes(inline).build()
}

fn bytes_of(sent: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec(sent).unwrap()
}

fn reference_in(sent: &[u8]) -> Reference {
    rmp_serde::from_slice(sent).unwrap()
}

fn in_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// The kind of error that resolving ends with, or the text.
fn resolved(sent: &[u8]) -> Result<String, ErrorKind> {
    let proxy: Proxy<String> = rmp_serde::from_slice(sent).unwrap();
    proxy.resolve().cloned().map_err(|error| error.kind())
}

#[test]
fn nothing_is_read_where_the_policy_forbids_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder_store("sites-read", &folder, &[NOWHERE], 0);
    let key = store.put("secret").unwrap();
    store.cache().insert(key.clone(), Arc::new("secret".to_owned()), 6);
    for error in [
        store.get::<String>(&key).unwrap_err(),
        store.get_payload(&key, Access::ReadOnly).map(drop).unwrap_err(),
        store.reader(&key).map(drop).unwrap_err(),
        store.copy(&key).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Forbidden, "{error}");
        assert!(error.to_string().contains(NOWHERE), "{error}");
    }
    assert!(store.exists(&key).unwrap(), "storing and freeing is not resolving");
    store.evict(&key).unwrap();
    assert!(!store.exists(&key).unwrap());
}

#[test]
fn the_policy_travels_and_a_looser_store_of_the_name_does_not_lift_it() {
    let folder = tempfile::tempdir().unwrap();
    let strict = folder_store("sites-travel", &folder, &[NOWHERE], 0);
    let inline = folder_store("sites-travel", &folder, &[NOWHERE], 1000);
    let sent = [&strict, &inline].map(|store| bytes_of(&store.proxy("x".to_owned()).unwrap()));
    assert!(reference_in(&sent[1]).inline.is_some());
    let future: Future<String> = strict.future().unwrap();
    future.set_result(&"x".to_owned()).unwrap();
    let connector = Arc::new(FileConnector::new(folder.path()).unwrap());
    let loose = Store::builder("sites-travel", connector).build();
    proxystore::store::registry::register(&loose).unwrap();
    for sent in [&sent[0], &sent[1], &bytes_of(&future.proxy())] {
        assert_eq!(resolved(sent), Err(ErrorKind::Forbidden));
    }
    let mut owned = OwnedProxy::<String>::adopt(&reference_in(&sent[0]), None).unwrap();
    assert_eq!(owned.borrow_mut().map(drop).unwrap_err().kind(), ErrorKind::Forbidden);
    drop(owned);
    assert_eq!(loose.get::<String>(&reference_in(&sent[0]).key).unwrap(), None, "it was freed");
    loose.close(true).unwrap();
}

#[test]
fn a_stricter_store_of_the_name_counts_too() {
    let folder = tempfile::tempdir().unwrap();
    let connector = || Arc::new(FileConnector::new(folder.path()).unwrap());
    let loose = |inline| Store::builder("sites-strict", connector()).inline_bytes(inline).build();
    let strict = folder_store("sites-strict", &folder, &[NOWHERE], 0);
    proxystore::store::registry::register(&strict).unwrap();
    for inline in [0, 1000] {
        let proxy = loose(inline).proxy("x".to_owned()).unwrap();
        assert_eq!(resolved(&bytes_of(&proxy)), Err(ErrorKind::Forbidden));
    }
    strict.close(true).unwrap();
}

#[test]
#[expect(clippy::print_stdout, reason = "the answer of this process")]
fn role_resolves() {
    let Some(argument) = process::argument() else { return };
    let digits: Vec<_> = argument.chars().map(|c| c.to_digit(16).unwrap() as u8).collect();
    let sent: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    println!("=> {:?}", resolved(&sent));
}

/// What a process with this environment makes of a proxy that it is sent.
fn elsewhere(sent: &[u8], variable: &str, value: &str) -> String {
    let mut command = process::command("trust::role_resolves", &in_hex(sent));
    command.env_remove("PROXYSTORE_SITE").env(variable, value);
    let lines = process::finish(command.spawn().unwrap());
    lines.iter().find_map(|line| line.split("=> ").nth(1)).unwrap().to_owned()
}

#[test]
fn views_are_as_strict_as_proxies() {
    let folder = tempfile::tempdir().unwrap();
    for inline in [0, 1000] {
        let store = folder_store("sites-view", &folder, &[NOWHERE], inline);
        let proxy = store.proxy("x".to_owned()).unwrap();
        assert_eq!(proxy.view().unwrap_err().kind(), ErrorKind::Forbidden);
        let sent = Proxy::<String>::from_reference(proxy.reference().unwrap());
        assert_eq!(sent.view().unwrap_err().kind(), ErrorKind::Forbidden);
        let factory = StoreFactory::of(&store, proxy.reference().unwrap());
        assert_eq!(factory.view().unwrap_err().kind(), ErrorKind::Forbidden);
    }
}

#[test]
fn the_environment_names_the_site() {
    let folder = tempfile::tempdir().unwrap();
    for inline in [0, 1000] {
        let store = folder_store("sites-env", &folder, &["polaris", LAB], inline);
        let sent = bytes_of(&store.proxy("x".to_owned()).unwrap());
        assert_eq!(elsewhere(&sent, "PROXYSTORE_SITE", "Lab-7"), "Ok(\"x\")");
        assert_eq!(elsewhere(&sent, "PROXYSTORE_SITE", "lab-77"), "Err(Forbidden)");
        assert_eq!(elsewhere(&sent, "PROXYSTORE_SITE", ""), "Err(Forbidden)");
    }
}

#[test]
fn the_environment_names_the_producers() {
    let folder = tempfile::tempdir().unwrap();
    let connector = Arc::new(FileConnector::new(folder.path()).unwrap());
    let store = Store::builder("producers-env", connector).inline_bytes(0).build();
    let mine = store.proxy_evicting(&"x".to_owned()).unwrap();
    let sent = bytes_of(&mine);
    let key = "ab".repeat(32);
    let list = folder.path().join("producers");
    std::fs::write(&list, format!("{key} # ours\n")).unwrap();
    assert_eq!(elsewhere(&sent, "PROXYSTORE_PRODUCERS", &key), "Err(Untrusted)");
    let list = list.to_str().unwrap();
    assert_eq!(elsewhere(&sent, "PROXYSTORE_PRODUCERS", list), "Err(Untrusted)");
    assert_eq!(elsewhere(&sent, "PROXYSTORE_PRODUCERS", "no such file"), "Err(Config)");
    assert_eq!(elsewhere(&sent, "PROXYSTORE_PRODUCERS", ""), "Ok(\"x\")");
}

#[test]
fn role_requires_producers() {
    let Some(folder) = process::argument() else { return };
    let connector = Arc::new(FileConnector::new(&folder).unwrap());
    let store = Store::builder("producers", connector).inline_bytes(200).build();
    let small = bytes_of(&store.proxy("x".to_owned()).unwrap());
    let large = bytes_of(&store.proxy("x".repeat(1000)).unwrap());
    let future: Future<String> = store.future().unwrap();
    let sent_future = bytes_of(&future);
    proxystore::trust::require_producers(Some(vec![[7; 32]]));
    future.set_result(&"x".to_owned()).unwrap();
    assert_eq!(future.result(None).unwrap().as_str(), "x", "what it made itself was not sent");
    assert_eq!(resolved(&small), Err(ErrorKind::Untrusted));
    assert_eq!(resolved(&large), Err(ErrorKind::Untrusted));
    assert_eq!(store.proxy("x".to_owned()).unwrap().view().unwrap().load::<String>().unwrap(), "x");
    for sent in [&small, &large, &sent_future] {
        let received: Proxy<String> = rmp_serde::from_slice(sent).unwrap();
        assert_eq!(received.view().unwrap_err().kind(), ErrorKind::Untrusted);
    }
    let received: Future<String> = rmp_serde::from_slice(&sent_future).unwrap();
    assert_eq!(received.result(None).unwrap_err().kind(), ErrorKind::Untrusted);
    let of_received = received.proxy().resolve().map(drop);
    assert_eq!(of_received.unwrap_err().kind(), ErrorKind::Untrusted);
    let adopted = OwnedProxy::<String>::adopt(&reference_in(&large), None);
    assert_eq!(adopted.unwrap_err().kind(), ErrorKind::Untrusted);
    let mut signed = reference_in(&large);
    let producer = [7; 32];
    signed.signature = Some(proxystore::reference::Signature { producer, bytes: [1; 64] });
    let error = proxystore::trust::check(&signed).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted, "a signature that is none");
    assert!(proxystore::store::registry::all().is_empty(), "no store was opened");
    proxystore::trust::require_producers(None);
    assert_eq!(resolved(&small), Ok("x".to_owned()));
}

#[test]
fn a_process_may_demand_producers() {
    let folder = tempfile::tempdir().unwrap();
    let role = "trust::role_requires_producers";
    let command = process::command(role, folder.path().to_str().unwrap()).spawn();
    process::finish(command.unwrap());
}

#[cfg(feature = "seal")]
#[test]
fn role_believes_one_producer() {
    use proxystore::seal::{Identity, set_identity};
    use proxystore::store::SealMode;

    let Some(folder) = process::argument() else { return };
    let identity = Identity::generate().unwrap();
    let producer = identity.public_key();
    set_identity(identity).unwrap();
    let connector = Arc::new(FileConnector::new(&folder).unwrap());
    let store = Store::builder("signed", connector).seal(Some(SealMode::Signed)).build();
    let sent = bytes_of(&store.proxy("x".to_owned()).unwrap());
    proxystore::trust::require_producers(Some(vec![producer]));
    assert_eq!(resolved(&sent), Ok("x".to_owned()));
    let view = rmp_serde::from_slice::<Proxy<String>>(&sent).unwrap().view().unwrap();
    assert_eq!(view.load::<String>().unwrap(), "x");
    let future: Future<String> = store.future().unwrap();
    future.set_result(&"x".to_owned()).unwrap();
    let received: Future<String> = rmp_serde::from_slice(&bytes_of(&future)).unwrap();
    let timeout = Some(std::time::Duration::from_mins(1));
    assert_eq!(received.result(timeout).unwrap().as_str(), "x", "who waits longer alters nothing");

    let mut forged = reference_in(&sent);
    let mut config = StoreConfig::clone(&forged.store);
    config.settings.insert("sites".to_owned(), proxystore::connectors::Value::List(vec![]));
    forged.store = Arc::new(config);
    assert_eq!(resolved(&bytes_of(&forged)), Err(ErrorKind::Untrusted));
    let mut unsigned = reference_in(&sent);
    unsigned.signature = None;
    assert_eq!(resolved(&bytes_of(&unsigned)), Err(ErrorKind::Untrusted));
    let other = Identity::generate().unwrap().public_key();
    proxystore::trust::require_producers(Some(vec![other]));
    assert_eq!(resolved(&sent), Err(ErrorKind::Untrusted));
}

#[cfg(feature = "seal")]
#[test]
fn what_a_known_producer_signed_is_resolved() {
    let folder = tempfile::tempdir().unwrap();
    let role = "trust::role_believes_one_producer";
    let command = process::command(role, folder.path().to_str().unwrap()).spawn();
    process::finish(command.unwrap());
}

#[test]
fn no_error_shows_user_or_password() {
    const SECRETS: [&str; 2] = ["ada-of-the-lab", "hush-hush"];
    let [user, password] = SECRETS;
    let authority = format!("{user}:{password}@127.0.0.1:1");
    let mut texts = Vec::new();
    for url in [
        format!("redis://{authority}/0"),
        format!("redis://{authority}/none"),
        format!("rediss://{authority}/0"),
        format!("redis+cluster://{authority}"),
        format!("redis+unix://{user}:{password}@/nowhere/socket"),
        format!("multi:a=redis://{authority}/0;b=memory://b"),
        format!("multi:a=nonsense://{authority}/0"),
        format!("nonsense://{authority}"),
        format!("redis:/{authority}"),
    ] {
        let config = StoreConfig::new("secrets", proxystore::ConnectorConfig::new(url.clone()));
        let mut forbidden = config.clone();
        forbidden.settings.insert("sites".to_owned(), proxystore::connectors::Value::List(vec![]));
        let reference = Reference::new(forbidden, proxystore::Key::latest("k"));
        texts.push(format!("{config:?}"));
        let other = StoreConfig::new("o", proxystore::ConnectorConfig::new("shm://o"));
        for error in [
            Store::open(&url).map(|store| texts.push(format!("{store:?}"))).err(),
            proxystore::store::registry::get_or_open(&config).err(),
            proxystore::trust::check(&reference).err(),
            config.check_same(&other).err(),
            proxystore::connectors::multi::parts_of(&config.connector).err(),
        ] {
            texts.extend(error.map(|error| format!("{error} {error:?}")));
        }
        if let Ok(store) = proxystore::store::registry::get_or_open(&config) {
            let key = proxystore::Key::latest("a:k"); // of the part named a
            texts.push(format!("{store:?} {}", store.missing(&key)));
            texts.extend(store.get::<String>(&key).err().map(|error| format!("{error:?}")));
            texts.extend(store.expire(&[key], None).err().map(|error| format!("{error:?}")));
            store.close(true).unwrap();
            texts.extend(store.put("x").err().map(|error| format!("{error:?}")));
        }
    }
    assert!(texts.len() > 30, "{}", texts.len());
    for text in texts {
        assert!(SECRETS.iter().all(|secret| !text.contains(secret)), "{text}");
    }
}

//! Nothing that is shown to people shows a secret.

use std::collections::BTreeMap;
use std::sync::Arc;

use proxystore::connectors::memory::MemoryConnector;
use proxystore::connectors::{ConnectorConfig, Value, multi};
use proxystore::{Error, Key, Proxy, Reference, Seal, Store, StoreConfig};

const SECRET: [u8; 32] = [
    0xa7, 0x3e, 0x91, 0x5c, 0x08, 0xd2, 0x6f, 0xb4, 0x1a, 0xe9, 0x77, 0x30, 0xcc, 0x52, 0x8d, 0xf6,
    0x4b, 0x13, 0xae, 0x60, 0x95, 0x2f, 0xd8, 0x74, 0x0e, 0xbb, 0x41, 0x9a, 0xe5, 0x36, 0x7c, 0x03,
];

/// The secret the ways that bytes are written down, and the password.
fn spellings() -> Vec<String> {
    let hex = data_encoding::HEXLOWER.encode(&SECRET);
    let base64 = data_encoding::BASE64.encode(&SECRET);
    let decimal = format!("{SECRET:?}");
    let inner = |text: &str| text[4..text.len() - 4].to_owned();
    vec![
        inner(&hex),
        inner(&hex.to_uppercase()),
        inner(&base64),
        inner(&data_encoding::BASE64URL_NOPAD.encode(&SECRET)),
        inner(&decimal),
        inner(&SECRET.escape_ascii().to_string()),
        "hush".to_owned(),
    ]
}

/// A sealed reference to a channel with credentials, in the URL and as options.
fn reference() -> Reference {
    let mut part = ConnectorConfig::new("redis://user:hush@localhost:1/0");
    part.options.insert("password".to_owned(), Value::Text("hush".to_owned()));
    let part = multi::PartConfig {
        name: "cache".to_owned(),
        channel: part,
        policy: multi::Policy::default(),
    };
    let mut connector = multi::config_of(&[part]);
    connector.options.insert("password".to_owned(), Value::Text("hush".to_owned()));
    let key = Key::new("cache:run.7", 1, 5).sealed(Some(Seal::new(SECRET, Some(SECRET))));
    let mut reference = Reference::new(StoreConfig::new("demo", connector), key);
    reference.inline = Some(SECRET.into());
    reference.extension = Some(SECRET.to_vec());
    reference
}

fn check(shown: &str) {
    for spelling in spellings() {
        assert!(!shown.contains(&spelling), "{spelling} in {shown}");
    }
}

fn check_error(error: &Error) {
    check(&format!("{error} {error:?} {:?}", error.context().collect::<Vec<_>>()));
}

#[test]
fn debug_output_shows_no_secret() {
    let reference = reference();
    check(&format!("{reference:?} {:?} {} {:?}", reference.key, reference.key, reference.store));
    check(&format!("{reference:#?}"));
    let proxy: Proxy<String> = Proxy::from_reference(reference);
    check(&format!("{proxy:?}"));
}

#[test]
fn errors_show_no_secret() {
    let reference = reference();
    let text = reference.to_secret_text().unwrap();
    let bytes = reference.encode().unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x80;
        for bytes in [&bytes[..at], &damaged] {
            if let Err(error) = Reference::decode(bytes) {
                check_error(&error);
            }
        }
        check_error(
            &Reference::from_text(&format!("{}*{}", &text[..at], &text[at..])).unwrap_err(),
        );
    }
    for url in
        ["multi:cache=redis://user:hush@host;b", "multi:a=redis://u:hush@h;a=redis://u:hush@h"]
    {
        let mut config = ConnectorConfig::new(url);
        check_error(&multi::parts_of(&config).unwrap_err());
        config.options = BTreeMap::from([("password".to_owned(), Value::Text("hush".to_owned()))]);
        check_error(&multi::parts_of(&config).unwrap_err());
        check_error(&Store::open(url).unwrap_err());
    }
    let proxy: Proxy<String> = Proxy::from_reference(reference.without_secrets());
    check_error(&proxy.resolve().unwrap_err());
}

#[test]
fn keys_in_errors_and_metrics_show_no_secret() {
    let connector = Arc::new(MemoryConnector::new("secrets").unwrap());
    let store = Store::builder("secrets", connector).metrics(true).build();
    let key = Key::new("never-stored", 1, 5).sealed(Some(Seal::new(SECRET, None)));
    let proxy: Proxy<String> = store.proxy_from_key(&key);
    check_error(&proxy.resolve().unwrap_err());
    let metrics = proxystore::store::to_prometheus(std::slice::from_ref(&store));
    assert!(metrics.contains("get"), "{metrics}");
    check(&metrics);
}

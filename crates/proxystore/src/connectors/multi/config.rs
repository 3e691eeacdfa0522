//! What a configuration and a key say of the parts.

use std::collections::BTreeMap;

use super::Policy;
use crate::connectors::{ConnectorConfig, Value, percent, without_credentials};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;

/// Kind of the URLs of multi connectors.
pub const KIND: &str = "multi";

const OPTIONS: &str = "options";
const OPEN: &str = "open a multi connector";

/// A part: its name, its channel, and which objects go there.
#[derive(Debug, Clone, PartialEq)]
pub struct PartConfig {
    /// Unique within the multi connector; a part of its keys.
    pub name: String,
    /// From which the part's own connector can be opened.
    pub channel: ConnectorConfig,
    /// Which objects it takes, and on which hosts it is used.
    pub policy: Policy,
}

/// The configuration of a multi connector of these parts, in the order of definition.
///
/// ```
/// use proxystore::ConnectorConfig;
/// use proxystore::connectors::multi::{PartConfig, Policy, config_of, parts_of};
///
/// let part = |name: &str, url: &str, max_size_bytes| PartConfig {
///     name: name.to_owned(),
///     channel: ConnectorConfig::new(url),
///     policy: Policy { max_size_bytes, ..Policy::default() },
/// };
/// let parts = [part("small", "memory://a", 1000), part("large", "file:///b", u64::MAX)];
/// let config = config_of(&parts);
/// assert_eq!(config.url, "multi:small=memory://a;large=file:///b");
/// assert_eq!(parts_of(&config)?, parts);
/// # Ok::<(), proxystore::Error>(())
/// ```
pub fn config_of(parts: &[PartConfig]) -> ConnectorConfig {
    let channels: Vec<_> = parts
        .iter()
        .map(|PartConfig { name, channel, .. }| {
            let url = channel.url.replace('%', "%25").replace(';', "%3B");
            format!("{}={url}", encode_name(name))
        })
        .collect();
    let mut config = ConnectorConfig::new(format!("{KIND}:{}", channels.join(";")));
    for part in parts {
        let mut settings = part.policy.to_settings();
        if !part.channel.options.is_empty() {
            settings.insert(OPTIONS.to_owned(), Value::Map(part.channel.options.clone()));
        }
        if !settings.is_empty() {
            config.options.insert(part.name.clone(), Value::Map(settings));
        }
    }
    config
}

/// The parts of a configuration, in the order of definition; nothing is opened.
///
/// # Errors
/// [`ErrorKind::Config`] for a URL that names no parts, or one part twice, and for options that
/// belong to no part or are no policy.
pub fn parts_of(config: &ConnectorConfig) -> Result<Vec<PartConfig>> {
    let wrong = |cause: &'static str| {
        Error::new(ErrorKind::Config, OPEN, cause)
            .with("url", without_credentials(&config.url))
            .with_hint("write multi:NAME=URL;NAME=URL, with %3B for ';' and %25 for '%'")
    };
    let list =
        config.url.strip_prefix("multi:").ok_or_else(|| wrong("the URL is of another kind"))?;
    let mut options = config.options.clone();
    let mut parts: Vec<PartConfig> = Vec::new();
    for entry in list.split(';').filter(|entry| !entry.is_empty()) {
        let decoded = |text| percent::decode(text).and_then(|bytes| String::from_utf8(bytes).ok());
        let (name, url) = entry.split_once('=').ok_or_else(|| wrong("a part has no name"))?;
        let (Some(name), Some(url)) = (decoded(name), decoded(url)) else {
            return Err(wrong("a part is not percent-encoded UTF-8"));
        };
        if name.is_empty() {
            return Err(wrong("a part has no name"));
        }
        if parts.iter().any(|part| part.name == name) {
            return Err(wrong("two parts have one name").with("part", name));
        }
        let mut channel = ConnectorConfig::new(url);
        let mut settings = match options.remove(&name) {
            None => BTreeMap::new(),
            Some(Value::Map(settings)) => settings,
            Some(_) => return Err(wrong("the settings of a part are no table").with("part", name)),
        };
        match settings.remove(OPTIONS) {
            None => {}
            Some(Value::Map(options)) => channel.options = options,
            Some(_) => return Err(wrong("the options of a part are no table").with("part", name)),
        }
        let policy = Policy::from_settings(&settings).map_err(|error| error.with("part", &name))?;
        parts.push(PartConfig { name, channel, policy });
    }
    match options.keys().next() {
        None => Ok(parts),
        Some(name) => {
            Err(wrong("an option names no part").with("option", format_args!("{name:?}")))
        }
    }
}

/// The key of the multi connector for a key of the part `name`.
pub fn join_key(name: &str, key: &Key) -> Key {
    let id = format!("{}:{}", encode_name(name), key.id());
    Key::new(id, key.generation(), key.size())
}

/// The name of a part, and that part's own key; `None` for a key of another kind of channel.
pub fn split_key(key: &Key) -> Option<(String, Key)> {
    let (encoded, id) = key.id().split_once(':')?;
    let name = String::from_utf8(percent::decode(encoded)?).ok()?;
    // Each part has one spelling, so that equal keys are equal.
    let canonical = !name.is_empty() && encode_name(&name) == encoded;
    canonical.then(|| (name, Key::new(id, key.generation(), key.size())))
}

fn encode_name(name: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_graphic() && !b"%;=:".contains(&byte);
    percent::encode(name.as_bytes(), keep)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(name: &str, url: &str) -> PartConfig {
        PartConfig {
            name: name.to_owned(),
            channel: ConnectorConfig::new(url),
            policy: Policy::default(),
        }
    }

    #[test]
    fn a_configuration_says_only_what_is_special() {
        let mut special = part("big one", "file:///a%20b;c");
        special.policy.priority = 2;
        special.channel.options.insert("clear".to_owned(), Value::Bool(true));
        let parts = [part("a", "memory://x"), special];
        let config = config_of(&parts);
        assert_eq!(config.url, "multi:a=memory://x;big%20one=file:///a%2520b%3Bc");
        assert_eq!(config.options.keys().collect::<Vec<_>>(), ["big one"]);
        assert_eq!(parts_of(&config).unwrap(), parts);
    }

    #[test]
    fn a_multi_connector_may_be_a_part() {
        let inner = config_of(&[part("a", "memory://x"), part("b", "multi:c=memory://y")]);
        let outer = config_of(&[part("in", &inner.url)]);
        assert_eq!(parts_of(&outer).unwrap()[0].channel.url, inner.url);
    }

    #[test]
    fn wrong_configurations_say_what_is_wrong() {
        for (url, cause) in [
            ("memory://x", "another kind"),
            ("multi:memory", "has no name"),
            ("multi:=memory://x", "has no name"),
            ("multi:a=memory://x;a=memory://y", "two parts have one name"),
            ("multi:%4=memory://x", "percent-encoded"),
            ("multi:%FF=memory://x", "percent-encoded"),
        ] {
            let error = parts_of(&ConnectorConfig::new(url)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(cause), "{url}: {error}");
        }
        for (value, cause) in [
            (Value::Int(1), "no table"),
            (Value::Map([(OPTIONS.to_owned(), Value::Int(1))].into()), "no table"),
            (Value::Map([("speed".to_owned(), Value::Int(1))].into()), "\"speed\""),
        ] {
            let mut config = ConnectorConfig::new("multi:a=memory://x");
            config.options.insert("a".to_owned(), value);
            let error = parts_of(&config).unwrap_err();
            assert!(error.to_string().contains(cause), "{error}");
        }
        let mut config = ConnectorConfig::new("multi:a=memory://x");
        config.options.insert("b".to_owned(), Value::Map(BTreeMap::new()));
        assert!(parts_of(&config).unwrap_err().to_string().contains("\"b\""));
    }

    #[test]
    fn a_key_has_one_spelling() {
        for id in ["", "a", ":a", "%61:a", "a b:c", "%zz:a"] {
            assert!(split_key(&Key::latest(id)).is_none(), "{id}");
        }
    }

    proptest! {
        #[test]
        fn names_urls_and_ids_may_hold_anything(
            names in proptest::collection::btree_set(".{1,12}", 0..4),
            url in ".{0,20}",
            id in ".{0,20}",
        ) {
            let parts: Vec<_> = names.iter().map(|name| part(name, &url)).collect();
            let config = config_of(&parts);
            prop_assert_eq!(&parts_of(&config).unwrap(), &parts);
            for name in &names {
                let own = Key::new(id.clone(), 3, 4);
                let joined = join_key(name, &own);
                let (found, split) = split_key(&joined).unwrap();
                prop_assert_eq!((&found, &split, split.size()), (name, &own, own.size()));
            }
        }

        #[test]
        fn any_url_is_answered(url in "multi:.{0,40}") {
            let _ = parts_of(&ConnectorConfig::new(url));
        }
    }
}

//! What must not be shown: users and passwords in URLs and options.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use super::{ConnectorConfig, Value};

/// Options that are secret, whatever the channel.
const SECRET: [&str; 2] = ["username", "password"];

/// A URL without user and password, if there are any: fit for names, errors and logs.
///
/// ```
/// use proxystore::connectors::without_credentials;
/// assert_eq!(without_credentials("redis://user:word@host:6379/0"), "redis://host:6379/0");
/// assert_eq!(without_credentials("file:///folder/a@b"), "file:///folder/a@b");
/// assert_eq!(without_credentials("multi:a=redis://:word@x;b=shm://y"), "multi:a=redis://x;b=shm://y");
/// ```
pub fn without_credentials(url: &str) -> Cow<'_, str> {
    let ends = |c| c == '/' || (c == ';' && url.starts_with("multi:"));
    if !url.contains("://")
        && let (Some((scheme, _)), Some((_, place))) = (url.split_once(':'), url.rsplit_once('@'))
    {
        return format!("{scheme}:{place}").into(); // misspelt, as in "redis:/user:word@host"
    }
    let (mut clean, mut rest) = (String::new(), url);
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + "://".len());
        clean.push_str(before);
        let authority = &after[..after.find(ends).unwrap_or(after.len())];
        rest = authority.rfind('@').map_or(after, |at| &after[at + 1..]);
    }
    if clean.len() + rest.len() == url.len() { url.into() } else { (clean + rest).into() }
}

/// The options with stars for what is secret, however deep: those of a multi connector hold options of
/// its parts.
fn without_secrets(options: &BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    let shown = |(name, value): (&String, &Value)| {
        let value = match value {
            _ if SECRET.contains(&name.as_str()) => Value::Text("***".to_owned()),
            Value::Map(inner) => Value::Map(without_secrets(inner)),
            Value::Bytes(bytes) => Value::Text(format!("{} bytes", bytes.len())), // may hold any
            other => other.clone(),
        };
        (name.clone(), value)
    };
    options.iter().map(shown).collect()
}

impl fmt::Debug for ConnectorConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = without_secrets(&self.options);
        f.debug_struct("ConnectorConfig")
            .field("url", &without_credentials(&self.url))
            .field("options", &options)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_hides_what_is_secret() {
        let mut config = ConnectorConfig::new("redis://user:hush@host");
        config.options.insert("password".to_owned(), Value::Text("hush".to_owned()));
        config.options.insert("ttl".to_owned(), Value::Int(5));
        let part = [("username".to_owned(), Value::Text("grace".to_owned()))];
        config.options.insert("part".to_owned(), Value::Map(part.into()));
        let shown = format!("{config:?}");
        for secret in ["hush", "user@", "grace"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(shown.contains("redis://host") && shown.contains("ttl"), "{shown}");
    }
}

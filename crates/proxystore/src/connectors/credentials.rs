//! What must not be shown: users and passwords in URLs and options.

use std::borrow::Cow;
use std::fmt;

use super::{ConnectorConfig, Value};

/// Options that are secret, whatever the channel.
const SECRET: [&str; 1] = ["password"];

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
    let (mut clean, mut rest) = (String::new(), url);
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + "://".len());
        clean.push_str(before);
        let authority = &after[..after.find(ends).unwrap_or(after.len())];
        rest = authority.rfind('@').map_or(after, |at| &after[at + 1..]);
    }
    if clean.len() + rest.len() == url.len() { url.into() } else { (clean + rest).into() }
}

impl fmt::Debug for ConnectorConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = Value::Text("***".to_owned());
        let options = self.options.iter().map(|(name, value)| {
            (name, if SECRET.contains(&name.as_str()) { &hidden } else { value })
        });
        let options: std::collections::BTreeMap<_, _> = options.collect();
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
        let shown = format!("{config:?}");
        assert!(!shown.contains("hush") && !shown.contains("user"), "{shown}");
        assert!(shown.contains("redis://host") && shown.contains("ttl"), "{shown}");
    }
}

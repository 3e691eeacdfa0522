//! What must not be shown: users and passwords in URLs and options.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use super::{ConnectorConfig, Value};

// Options that are credentials, whatever the channel.
const USERNAME: &str = "username";
const PASSWORD: &str = "password";

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
        && let Some((scheme, rest)) = url.split_once(':')
        && let Some((_, place)) = rest.rsplit_once('@')
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

impl ConnectorConfig {
    /// The same without user and password, in the URL and in the options.
    #[must_use]
    pub fn without_credentials(&self) -> Self {
        Self {
            url: without_credentials(&self.url).into_owned(),
            options: replaced(&self.options, &[USERNAME, PASSWORD], None),
        }
    }
}

impl fmt::Debug for ConnectorConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = Value::Text("***".to_owned());
        f.debug_struct("ConnectorConfig")
            .field("url", &without_credentials(&self.url))
            .field("options", &replaced(&self.options, &[USERNAME, PASSWORD], Some(&hidden)))
            .finish()
    }
}

type Options = BTreeMap<String, Value>;

/// The options with `by` in place of each of these names, also in the tables of the parts of a
/// multi connector. A part may have such a name itself: tables are never replaced.
fn replaced(options: &Options, names: &[&str], by: Option<&Value>) -> Options {
    let replace = |(name, value): (&String, &Value)| {
        let value = match value {
            Value::Map(inner) => Some(Value::Map(replaced(inner, names, by))),
            _ if names.contains(&name.as_str()) => by.cloned(),
            _ => Some(value.clone()),
        };
        value.map(|value| (name.clone(), value))
    };
    options.iter().filter_map(replace).collect()
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

    #[test]
    fn a_misspelt_url_hides_what_may_be_secret() {
        assert_eq!(without_credentials("redis:/user:word@host"), "redis:host");
        assert_eq!(without_credentials("a@b:c"), "a@b:c");
    }

    #[test]
    fn so_does_that_of_several_channels() {
        let mut part = ConnectorConfig::new("redis://user:hush@host");
        part.options.insert("password".to_owned(), Value::Text("hush".to_owned()));
        part.options.insert("username".to_owned(), Value::Text("user".to_owned()));
        let inner = Value::Map([("options".to_owned(), Value::Map(part.options))].into());
        let mut config = ConnectorConfig::new("multi:password=redis://user:hush@host;b=shm://y");
        config.options.insert("password".to_owned(), inner);
        let shown = format!("{config:?}");
        assert!(!shown.contains("hush"), "{shown}");
        let open = config.without_credentials();
        assert_eq!(open.url, "multi:password=redis://host;b=shm://y");
        let empty = Value::Map(Options::new());
        let part = Value::Map([("options".to_owned(), empty)].into());
        assert_eq!(open.options, [("password".to_owned(), part)].into());
    }
}

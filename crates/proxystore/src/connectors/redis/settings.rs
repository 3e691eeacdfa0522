//! What a configuration says: the place, credentials, certificates, and how objects are laid out.

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::place::{Node, Place};
use crate::connectors::given::Given;
use crate::connectors::{ConnectorConfig, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::trust::patterns::{listed, matches};

/// Environment variable with the servers, as patterns separated by commas, that get credentials from
/// the environment; when it is not set, all that references name do.
const HOSTS: &str = "PROXYSTORE_REDIS_HOSTS";

pub(super) const OPEN: &str = "open a Redis connector";

const NAMES: [&str; 12] = [
    "username",
    "password",
    "share_credentials",
    "namespace",
    "ttl",
    "ca_file",
    "cert_file",
    "key_file",
    "timeout",
    "retries",
    "whole_bytes",
    "part_bytes",
];

/// Redis stores strings of up to 512 MiB; what a little less does not hold goes in parts.
const WHOLE_BYTES: u64 = 500 << 20;
const PART_BYTES: u64 = 64 << 20;

#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) place: Place,
    /// The place as text: names the channel, and never holds credentials.
    pub(super) url: String,
    /// First part of the ids made here: what `close` with `clear` removes.
    pub(super) namespace: String,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) cert_file: Option<PathBuf>,
    pub(super) key_file: Option<PathBuf>,
    /// Of objects that are put without one of their own.
    pub(super) ttl: Option<Duration>,
    /// How long a server may stay silent.
    pub(crate) timeout: Duration,
    /// How often an operation is repeated when the connection breaks.
    pub(super) retries: u32,
    /// Objects longer than this go in parts.
    pub(super) whole_bytes: u64,
    /// Length of a part.
    pub(super) part_bytes: u64,
    /// What travels in references.
    shared: ConnectorConfig,
}

/// Text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Settings {
    pub(crate) fn parse(config: &ConnectorConfig) -> Result<Self> {
        let (place, user_info) = Place::parse(&config.url).map_err(|cause| {
            // Not the URL itself: it may hold a password.
            Error::new(ErrorKind::Config, OPEN, format!("the URL is not usable: {cause}"))
                .with("kind", config.kind())
                .with_hint(
                    "write redis://HOST:PORT/DATABASE, rediss://HOST:PORT/DATABASE (TLS), \
                     redis+unix:///PATH or redis+cluster://HOST:PORT,HOST:PORT",
                )
        })?;
        let url = place.to_string();
        crate::connectors::known_options(
            OPEN,
            &ConnectorConfig { url: url.clone(), options: config.options.clone() },
            &NAMES,
        )?;
        let given = Given { operation: OPEN, url: &url, options: &config.options };

        let from_environment = |name: &str| env::var(name).ok().filter(|text| !text.is_empty());
        let is_known = from_environment(HOSTS).is_none_or(|known| is_known(&place, &known));
        let secret = |name: &str| from_environment(name).filter(|_| is_known);
        let username = given.text("username")?.or(user_info.username);
        let password = given.text("password")?.or(user_info.password);
        let (username, password) = match password {
            Some(_) => (username, password),
            None => (
                username.or_else(|| secret("PROXYSTORE_REDIS_USERNAME")),
                secret("PROXYSTORE_REDIS_PASSWORD"),
            ),
        };
        let path = |option, default: Option<String>| -> Result<Option<PathBuf>> {
            Ok(given.text(option)?.or(default).map(PathBuf::from))
        };
        let namespace = given.namespace()?;

        let mut shared = ConnectorConfig { url: url.clone(), options: config.options.clone() };
        shared.options.insert("namespace".to_owned(), Value::Text(namespace.clone()));
        let is_shared = given.flag("share_credentials")?;
        for (name, value) in [("username", &username), ("password", &password)] {
            match value {
                Some(value) if is_shared => {
                    shared.options.insert(name.to_owned(), Value::Text(value.clone()))
                }
                _ => shared.options.remove(name),
            };
        }
        let settings = Self {
            namespace,
            username,
            password: password.map(Secret),
            ca_file: path("ca_file", from_environment("PROXYSTORE_REDIS_CA_FILE"))?,
            cert_file: path("cert_file", secret("PROXYSTORE_REDIS_CERT_FILE"))?,
            key_file: path("key_file", secret("PROXYSTORE_REDIS_KEY_FILE"))?,
            ttl: given.seconds("ttl")?,
            timeout: given.seconds("timeout")?.unwrap_or(Duration::from_secs(20)),
            retries: given.number("retries", 0, 100)?.unwrap_or(4) as u32,
            whole_bytes: given.number("whole_bytes", 0, WHOLE_BYTES)?.unwrap_or(WHOLE_BYTES),
            part_bytes: given.number("part_bytes", 1, WHOLE_BYTES)?.unwrap_or(PART_BYTES),
            shared,
            url: url.clone(),
            place,
        };
        if settings.cert_file.is_some() != settings.key_file.is_some() {
            return Err(given
                .wrong("cert_file")
                .with_hint("give cert_file and key_file, or neither"));
        }
        Ok(settings)
    }

    /// The configuration of an equal connector, without credentials unless they are to be shared.
    pub(super) fn config(&self) -> ConnectorConfig {
        self.shared.clone()
    }
}

/// Whether all servers of a place match the patterns: host, host and port, or path of the socket.
fn is_known(place: &Place, patterns: &str) -> bool {
    place.nodes.iter().all(|node| {
        let (host, whole) = match node {
            Node::Tcp { host, .. } => (host.clone(), node.to_string()),
            Node::Unix(path) => (path.display().to_string(), String::new()),
        };
        listed(patterns).any(|pattern| matches(pattern, &host) || matches(pattern, &whole))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str, options: &[(&str, Value)]) -> Result<Settings> {
        let mut config = ConnectorConfig::new(url);
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        config.options.extend(options);
        Settings::parse(&config)
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn credentials_are_used_and_not_told() {
        let settings = parse("redis://user:hush@localhost:6379/0", &[]).unwrap();
        assert_eq!(settings.username.as_deref(), Some("user"));
        assert_eq!(settings.password, Some(Secret("hush".to_owned())));
        assert!(!format!("{settings:?} {:?}", settings.config()).contains("hush"));
        let mut names: Vec<_> = settings.config().options.into_keys().collect();
        assert_eq!(names.pop().as_deref(), Some("namespace"));
        assert!(names.is_empty(), "{names:?}");
    }

    #[test]
    fn credentials_travel_when_they_are_to_be_shared() {
        let options = [("password", text("hush")), ("share_credentials", Value::Bool(true))];
        let settings = parse("redis://localhost", &options).unwrap();
        assert_eq!(settings.config().options["password"], text("hush"));
        assert!(!format!("{settings:?} {:?}", settings.config()).contains("hush"));
    }

    #[test]
    fn a_url_that_cannot_be_used_is_not_repeated() {
        for url in ["redis://user:hush@", "redis://user:hush@a:b", "redis://:hush@a:1/x"] {
            let error = parse(url, &[]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(!format!("{error} {error:?}").contains("hush"), "{error}");
        }
    }

    #[test]
    fn all_servers_must_be_known() {
        for (url, patterns, expected) in [
            ("redis://store.lab.org", "*.lab.org", true),
            ("redis://store.lab.org:7000", "localhost, store.lab.org:7000", true),
            ("redis://store.lab.org:7000", "store.lab.org:6379", false),
            ("redis://store.lab.org.example.com", "*.lab.org", false),
            ("redis+cluster://a.lab.org,b.lab.org", "*.lab.org", true),
            ("redis+cluster://a.lab.org,b.example.com", "*.lab.org", false),
            ("redis+unix:///run/redis.sock", "/run/*", true),
            ("redis+unix:///tmp/redis.sock", "/run/*", false),
            ("redis://[::1]", "::1", true),
            ("redis://store", ",", false),
        ] {
            let (place, _) = Place::parse(url).unwrap();
            assert_eq!(is_known(&place, patterns), expected, "{url} {patterns}");
        }
    }

    #[test]
    fn options_are_checked() {
        for (name, value) in [
            ("password", Value::Int(1)),
            ("namespace", text("a.b")),
            ("namespace", text("")),
            ("ttl", Value::Int(0)),
            ("timeout", Value::Float(-1.0)),
            ("retries", Value::Int(-1)),
            ("part_bytes", Value::Int(0)),
            ("cert_file", text("/cert.pem")),
            ("share_credentials", text("yes")),
            ("colour", text("red")),
        ] {
            let error = parse("redis://localhost", &[(name, value)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}

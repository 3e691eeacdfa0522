//! What a relay is told in its `config.toml`.

use std::fs::{self, DirBuilder};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use proxystore::connectors::endpoint::home::home_dir;
use proxystore::wire::EndpointId;
use proxystore::wire::greeting::Token;
use proxystore::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::config::{Log, size};
use crate::directory::{write_private, wrong};

const READ: &str = "read a relay's configuration";
const CREATE: &str = "configure a relay";

/// A new relay's `config.toml`: every setting with its default, and what it means. [`Config::create`] adds a token.
pub const TEMPLATE: &str = include_str!("template.toml");

/// A whole `config.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where its files are; not part of the file.
    #[serde(skip)]
    pub directory: PathBuf,
    /// The address it listens on.
    pub host: IpAddr,
    /// The TCP port of the relay; 0 for any.
    pub port: u16,
    /// The UDP port at which endpoints learn their addresses, without which they find no direct paths; 0 for
    /// none, and then everything goes over TLS on one port.
    pub udp_port: u16,
    /// The names and addresses by which endpoints reach it, which a certificate made here is valid for.
    pub names: Vec<String>,
    /// File with the certificate chain, PEM; empty for one that is made here and signs itself.
    pub certificate: PathBuf,
    /// File with the certificate's key, PEM.
    pub key: PathBuf,
    /// Where the page, metrics and health are served, `ADDRESS:PORT`; empty for nowhere. Keep it local: there is
    /// no password.
    pub web: String,
    /// Who is admitted.
    pub access: Access,
    /// How much a client may use.
    pub limits: Limits,
    /// What is told of what happens.
    pub log: Log,
}

/// Section `[access]`. Whoever shows one of the tokens or is one of those listed is admitted.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// Whether everyone is admitted.
    pub open: bool,
    /// Secrets; endpoints write theirs in `token` of section `[relay]`.
    pub tokens: Vec<String>,
    /// Ids of endpoints.
    pub allow: Vec<String>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access")
            .field("open", &self.open)
            .field("tokens", &self.tokens.len()) // secrets
            .field("allow", &self.allow)
            .finish()
    }
}

/// Section `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes per second that are taken from each client; 0 for as many as come.
    #[serde(with = "size")]
    pub rate: u64,
    /// Connections at once, those that are being set up included.
    pub connections: usize,
    /// Connections at once from one address.
    pub connections_per_address: usize,
    /// Seconds in which a connection must have proven which endpoint it is.
    pub patience: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rate: 0, connections: 1024, connections_per_address: 64, patience: 15 }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            directory: default_directory(),
            host: Ipv6Addr::UNSPECIFIED.into(),
            port: 8443,
            udp_port: 7842,
            names: Vec::new(),
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            web: "127.0.0.1:7843".into(),
            access: Access::default(),
            limits: Limits::default(),
            log: Log::default(),
        }
    }
}

/// `relay` in the home of the project.
pub fn default_directory() -> PathBuf {
    home_dir().join("relay")
}

impl Config {
    /// The file of a relay's directory.
    pub fn file(directory: &Path) -> PathBuf {
        directory.join("config.toml")
    }

    /// Makes a relay's directory with [`TEMPLATE`] and a fresh token, which only its user can read.
    ///
    /// # Errors
    /// When there is one already, and when it cannot be written.
    pub fn create(directory: &Path) -> Result<Self> {
        let path = Self::file(directory);
        if path.exists() {
            return Err(Error::new(ErrorKind::Config, CREATE, "there is one already")
                .with("file", path.display())
                .with_hint("edit the file, or choose another directory"));
        }
        let token = format!("tokens = [\"{}\"]", Token::random()?.reveal());
        let failed = |error| Error::io(CREATE, error).with("file", path.display());
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        write_private(&path, &TEMPLATE.replacen("tokens = []", &token, 1)).map_err(failed)?;
        Self::read(directory)
    }

    /// What the relay of a directory is told; makes the directory as [`Config::create`] does if there is none.
    ///
    /// # Errors
    /// As [`Config::create`] and [`Config::read`].
    pub fn open(directory: &Path) -> Result<Self> {
        if Self::file(directory).exists() { Self::read(directory) } else { Self::create(directory) }
    }

    /// What the relay of a directory is told.
    ///
    /// # Errors
    /// When the file cannot be read, or says something that has no meaning.
    pub fn read(directory: &Path) -> Result<Self> {
        Self::read_file(&Self::file(directory))
    }

    /// What a relay is told by a file; its directory is where the file is.
    ///
    /// # Errors
    /// As those of [`read`](Self::read).
    pub fn read_file(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|error| {
            Error::io(READ, error)
                .with("file", path.display())
                .with_hint("configure the relay first: `proxystore relay --help` says how")
        })?;
        let config: Self = toml::from_str(&text).map_err(|source| {
            wrong(READ, &text, &source).with("file", path.display()).with_hint("correct the line")
        })?;
        let directory = path.parent().unwrap_or(path).to_owned();
        Ok(Self { directory, ..config })
    }

    /// Finds what contradicts itself before anything is started.
    ///
    /// # Errors
    /// When nobody could be admitted, an id is none, one file of certificate and key is missing, or `web` is no address.
    pub fn check(&self) -> Result<()> {
        let failed = |message: &'static str| Error::new(ErrorKind::Config, READ, message);
        let access = &self.access;
        if !access.open && access.tokens.is_empty() && access.allow.is_empty() {
            return Err(failed("nobody is admitted").with_hint(
                "in section [access], give `tokens` or the ids of endpoints in `allow`; `open = true` admits everyone",
            ));
        }
        if access.tokens.iter().any(|token| token.trim().is_empty()) {
            return Err(failed("a token is empty").with_hint("remove it from `tokens`"));
        }
        for id in &access.allow {
            id.parse::<EndpointId>()
                .map_err(|error| error.with("in", "section [access], `allow`"))?;
        }
        if self.certificate.as_os_str().is_empty() != self.key.as_os_str().is_empty() {
            return Err(failed("of certificate and key, one is missing")
                .with_hint("give both files, or none to have a certificate made"));
        }
        if self.limits.connections == 0 || self.limits.connections_per_address == 0 {
            return Err(failed("no connection is allowed")
                .with_hint("in section [limits], allow one at least"));
        }
        self.web_address().map(drop)
    }

    /// Where the page is served, if it is.
    ///
    /// # Errors
    /// When `web` is no address.
    pub fn web_address(&self) -> Result<Option<SocketAddr>> {
        if self.web.is_empty() {
            return Ok(None);
        }
        self.web.parse().map(Some).map_err(|source| {
            Error::new(ErrorKind::Config, READ, "`web` is no address with a port")
                .with("web", &self.web)
                .with_hint("write it as \"127.0.0.1:7843\", or \"\" for none")
                .with_source(source)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_says_the_defaults() {
        let config: Config = toml::from_str(TEMPLATE).expect("the template is read");
        assert_eq!(config, Config::default());
    }

    #[test]
    fn a_new_relay_admits_by_a_fresh_token() {
        let home = tempfile::tempdir().expect("a directory");
        let one = Config::create(&home.path().join("one")).expect("created");
        let two = Config::create(&home.path().join("two")).expect("created");
        assert_eq!(one.access.tokens.len(), 1);
        assert_ne!(one.access.tokens, two.access.tokens);
        one.check().expect("it can run");
        assert!(!format!("{one:?}").contains(&one.access.tokens[0]));
        let again = Config::create(&one.directory).expect_err("there is one");
        assert!(again.to_string().contains("there is one already"), "{again}");
        assert_eq!(Config::open(&one.directory).expect("it is there"), one);
    }

    #[test]
    fn nothing_is_open_by_default() {
        let error = Config::default().check().expect_err("nobody is admitted");
        assert!(error.to_string().contains("open = true"), "{error}");
    }
}

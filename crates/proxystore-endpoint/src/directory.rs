//! The files of an endpoint, in a directory that only its user enters.
//!
//! | file | |
//! | --- | --- |
//! | `config.toml` | what it is told; see [`Config`] |
//! | `identity` | its secret key, which is who it is |
//! | `token` | the secret it shares with its clients |
//! | `address.toml` | how it is reached; see [`Card`] |
//! | `daemon.pid` | the process, and a lock that says whether it lives |
//! | `log.txt` | what happened |
//! | `socket` | for clients on this host, unless its path is too long: the card says where it is |
//! | `objects/` | objects on disk |

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use data_encoding::BASE32_NOPAD_NOCASE;
use iroh::SecretKey;
use proxystore::connectors::endpoint::home::{CARD, Card, TOKEN, read_token};
use proxystore::wire::EndpointId;
use proxystore::wire::greeting::Token;
use proxystore::{Error, ErrorKind, Result};

use crate::config::{Config, overridden};

const CREATE: &str = "configure an endpoint";
const READ: &str = "read an endpoint's files";

/// The directory of one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory(PathBuf);

impl Directory {
    /// The directory at a path, which need not exist.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory of the endpoint of a name, below the home of the project. It need not exist.
    ///
    /// # Errors
    /// When this is no name: letters, digits, dashes and underscores make one.
    pub fn named(home: &Path, name: &str) -> Result<Self> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
            return Err(Error::new(ErrorKind::Config, "name an endpoint", "this is no name")
                .with("name", format_args!("{name:?}"))
                .with_hint("use up to 64 letters, digits, dashes and underscores"));
        }
        Ok(Self(home.join(name)))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// `config.toml`.
    pub fn config_file(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    /// `identity`.
    pub fn identity_file(&self) -> PathBuf {
        self.0.join("identity")
    }

    /// `daemon.pid`.
    pub fn pid_file(&self) -> PathBuf {
        self.0.join("daemon.pid")
    }

    /// `log.txt`.
    pub fn log_file(&self) -> PathBuf {
        self.0.join("log.txt")
    }

    /// `socket`, where its path is short enough; see the card.
    pub fn socket(&self) -> PathBuf {
        self.0.join("socket")
    }

    /// `objects`.
    pub fn objects(&self) -> PathBuf {
        self.0.join("objects")
    }

    /// Makes the directory with a new identity and token, and `config` as its text.
    ///
    /// # Errors
    /// When there is an endpoint already, and when the files cannot be written.
    pub fn create(&self, name: &str, config: &str) -> Result<Card> {
        if self.config_file().exists() {
            return Err(Error::new(ErrorKind::Config, CREATE, "there is one of this name")
                .with("directory", self.0.display())
                .with_hint(
                    "choose another name, or remove it first: `proxystore endpoint remove`",
                ));
        }
        let failed = |error| Error::io(CREATE, error).with("directory", self.0.display());
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0).map_err(failed)?;
        // Also where it was there already.
        fs::set_permissions(&self.0, Permissions::from_mode(0o700)).map_err(failed)?;
        let secret = SecretKey::generate();
        let text = BASE32_NOPAD_NOCASE.encode(&secret.to_bytes()).to_ascii_lowercase();
        write_private(&self.identity_file(), &text).map_err(failed)?;
        write_private(&self.0.join(TOKEN), &Token::random()?.reveal()).map_err(failed)?;
        let id = EndpointId::from_bytes(*secret.public().as_bytes());
        let card = Card {
            name: name.to_owned(),
            id: id.to_string(),
            uuid: id.uuid(),
            host: None,
            socket: None,
            tcp: None,
            relay: None,
            web: None,
        };
        self.write_card(&card)?;
        // Last: without it there is no endpoint, and it may be configured again.
        write_private(&self.config_file(), config).map_err(failed)?;
        Ok(card)
    }

    /// What the endpoint is told: by its file, and by the environment over it (see [`overridden`]).
    ///
    /// # Errors
    /// When the file cannot be read, or it or the environment says something that has no meaning.
    pub fn config(&self) -> Result<Config> {
        let path = self.config_file();
        let text = fs::read_to_string(&path)
            .map_err(|error| Error::io(READ, error).with("file", path.display()))?;
        let config = toml::from_str(&text).map_err(|source| {
            wrong(READ, &text, &source).with("file", path.display()).with_hint(
                "correct the line, or compare with `proxystore endpoint configure --help`",
            )
        })?;
        overridden(config, std::env::vars_os())
    }

    /// Replaces the file with what the endpoint is told, if it has a meaning.
    ///
    /// # Errors
    /// When it has none, and when the file cannot be written.
    pub fn write_config(&self, text: &str) -> Result<()> {
        const WRITE: &str = "write an endpoint's configuration";
        toml::from_str::<Config>(text)
            .map_err(|source| wrong(WRITE, text, &source).with_hint("nothing was written"))?;
        let path = self.config_file();
        write_private(&path, text)
            .map_err(|error| Error::io(WRITE, error).with("file", path.display()))
    }

    /// Its secret key.
    ///
    /// # Errors
    /// When it cannot be read, or is none.
    pub fn identity(&self) -> Result<SecretKey> {
        let path = self.identity_file();
        let text = fs::read_to_string(&path)
            .map_err(|error| Error::io(READ, error).with("file", path.display()))?;
        let raw = BASE32_NOPAD_NOCASE.decode(text.trim().as_bytes()).ok();
        let raw: Option<[u8; 32]> = raw.and_then(|raw| raw.try_into().ok());
        raw.map(|raw| SecretKey::from_bytes(&raw)).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, READ, "the secret key is damaged")
                .with("file", path.display())
                .with_hint(
                    "restore the file, or configure the endpoint anew: it will have another id",
                )
        })
    }

    /// The secret it shares with its clients.
    ///
    /// # Errors
    /// When it cannot be read, or is none.
    pub fn token(&self) -> Result<Token> {
        read_token(&self.0)
    }

    /// How it is reached; `None` when there is no endpoint here.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn card(&self) -> Result<Option<Card>> {
        Card::read(&self.0)
    }

    /// Says how it is reached from now on.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_card(&self, card: &Card) -> Result<()> {
        const WRITE: &str = "write an endpoint's address";
        let text = toml::to_string(card).map_err(|source| {
            Error::new(ErrorKind::Config, WRITE, "it has no form").with_source(source)
        })?;
        write_private(&self.0.join(CARD), &text)
            .map_err(|error| Error::io(WRITE, error).with("directory", self.0.display()))
    }
}

/// What is wrong with a configuration, and in which line. The line itself may have a secret in it.
pub(crate) fn wrong(operation: &'static str, text: &str, source: &toml::de::Error) -> Error {
    let error = Error::new(ErrorKind::Config, operation, source.message().to_owned());
    match source.span().and_then(|span| text.get(..span.start)) {
        Some(before) => error.with("line", before.matches('\n').count() + 1),
        None => error,
    }
}

/// Replaces a file that only its user reads, in one step.
pub(crate) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let _ = fs::remove_file(&temporary); // of one who was killed while writing it
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_configured_to_the_end_is_configured_again() {
        let home = tempfile::tempdir().unwrap();
        let directory = Directory::named(home.path(), "a").unwrap();
        let in_the_way = directory.path().join(CARD);
        fs::create_dir_all(&in_the_way).unwrap();
        directory.create("a", "").unwrap_err();
        fs::remove_dir(in_the_way).unwrap();
        let card = directory.create("a", "").unwrap();
        assert_eq!(directory.card().unwrap().as_ref(), Some(&card));
        assert_eq!(directory.create("a", "").unwrap_err().kind(), ErrorKind::Config);
    }

    #[test]
    fn nobody_else_enters_a_directory_that_was_there_already() {
        let home = tempfile::tempdir().unwrap();
        let directory = Directory::named(home.path(), "a").unwrap();
        fs::create_dir(directory.path()).unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        directory.create("a", "").unwrap();
        let mode = fs::metadata(directory.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}

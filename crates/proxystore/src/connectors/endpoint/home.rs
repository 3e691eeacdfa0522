//! Where the endpoints of this user are: directories below the home of the project, each with a
//! card that says how its daemon is reached.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::connectors::shm::{make_private_directory, user_directory};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::EndpointId;
use crate::wire::greeting::Token;

/// The file in an endpoint's directory that says how its daemon is reached.
pub const CARD: &str = "address.toml";
/// The file with the secret that clients and daemon share.
pub const TOKEN: &str = "token";

/// How far below the home directories are looked for endpoints.
const DEPTH: usize = 4;

/// How an endpoint is reached: written when it is configured, and again whenever its daemon starts
/// and stops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Its name on this site.
    pub name: String,
    /// Its public key.
    pub id: String,
    /// The id in the form of a UUID.
    pub uuid: String,
    /// The host on which its daemon runs; none while it does not.
    pub host: Option<String>,
    /// The Unix socket of the daemon, for clients on that host.
    pub socket: Option<PathBuf>,
    /// `HOST:PORT` of the daemon, for clients on other hosts.
    pub tcp: Option<String>,
    /// The relay by which peers reach it.
    pub relay: Option<String>,
    /// `HOST:PORT` of its metrics, health and page.
    pub web: Option<String>,
}

impl Card {
    /// Reads the card in an endpoint's directory; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read, or is none.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        const READ: &str = "read an endpoint's address";
        let path = dir.join(CARD);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(Error::io(READ, error).with("file", path.display())),
        };
        toml::from_str(&text).map(Some).map_err(|source| {
            Error::new(ErrorKind::Corrupt, READ, source.message().to_owned())
                .with("file", path.display())
                .with_hint("restart the endpoint, which writes it again")
        })
    }

    /// The public key.
    ///
    /// # Errors
    /// When it is none.
    pub fn endpoint(&self) -> Result<EndpointId> {
        self.id.parse()
    }

    /// Whether `text` names this endpoint: by its name, its id in either form, or its UUID.
    pub fn is_called(&self, text: &str) -> bool {
        let id = text.parse::<EndpointId>();
        text == self.name
            || text.eq_ignore_ascii_case(&self.uuid)
            || id.is_ok_and(|id| self.id.parse::<EndpointId>().is_ok_and(|own| own == id))
    }
}

/// The token in an endpoint's directory.
///
/// # Errors
/// When it cannot be read, or is none.
pub fn read_token(dir: &Path) -> Result<Token> {
    let path = dir.join(TOKEN);
    let text = fs::read_to_string(&path).map_err(|error| {
        Error::io("read an endpoint's token", error)
            .with("file", path.display())
            .with_hint("only the user who configured the endpoint can be its client")
    })?;
    text.parse()
}

/// The home of the project: `$PROXYSTORE_HOME`, else `$XDG_DATA_HOME/proxystore`, else
/// `~/.local/share/proxystore`. A user whom the system knows no home of has `/tmp/proxystore-UID`, if nobody else
/// made that; else it is a path where nothing can be.
pub fn home_dir() -> PathBuf {
    let variable =
        |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(home) = variable("PROXYSTORE_HOME") {
        return home;
    }
    let home = || std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
    variable("XDG_DATA_HOME")
        .or_else(|| Some(home()?.join(".local/share")))
        .map(|data| data.join("proxystore"))
        .or_else(|| private_home(Path::new("/tmp")))
        .unwrap_or_else(|| "/dev/null/proxystore".into())
}

/// A home below a directory in which anybody may make one: who did would be taken for this user's endpoints.
fn private_home(root: &Path) -> Option<PathBuf> {
    let home = user_directory(root);
    make_private_directory(&home).ok().map(|()| home)
}

/// The endpoints configured below a directory, with their directories, in the order of these. Cards that
/// cannot be read are passed over.
pub fn endpoints_below(home: &Path) -> Vec<(PathBuf, Card)> {
    let mut found = Vec::new();
    collect(home, DEPTH, &mut found);
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    found
}

fn collect(dir: &Path, depth: usize, found: &mut Vec<(PathBuf, Card)>) {
    if let Ok(Some(card)) = Card::read(dir) {
        found.push((dir.to_owned(), card)); // what is below is the endpoint's own
        return;
    }
    if depth == 0 {
        return;
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), depth - 1, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_home_that_others_may_enter_is_none() {
        let root = tempfile::tempdir().unwrap();
        let home = private_home(root.path()).unwrap();
        assert_eq!(private_home(root.path()), Some(home.clone()));
        fs::set_permissions(&home, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(private_home(root.path()), None);
    }
}

//! Which daemons may be asked from here, and where each is.

use std::env;
use std::fmt;
use std::path::PathBuf;

use super::home::{Card, endpoints_below, home_dir, read_token};
use super::settings::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::EndpointId;
use crate::wire::greeting::Token;

/// `HOST:PORT` of a daemon whose card is not on this host.
const ADDRESS: &str = "PROXYSTORE_ENDPOINT_ADDRESS";
/// Its token.
const TOKEN: &str = "PROXYSTORE_ENDPOINT_TOKEN";

const FIND: &str = "find an endpoint";

/// Where a daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Unix(PathBuf),
    Tcp(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => f.write_str(address),
        }
    }
}

/// A daemon that may be asked.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// Its name on this site; empty where it is not known.
    pub(super) name: String,
    /// Who it must be, where that is known.
    pub(super) id: Option<EndpointId>,
    /// Where it listens, best first; nowhere while it does not run.
    pub(super) places: Vec<Place>,
    /// Where its token is.
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    Directory(PathBuf),
    Environment(String),
}

impl Candidate {
    fn of_card(dir: PathBuf, card: Card, id: EndpointId) -> Self {
        let unix = card.socket.map(Place::Unix);
        let places = unix.into_iter().chain(card.tcp.map(Place::Tcp)).collect();
        Self { name: card.name, id: Some(id), places, source: Source::Directory(dir) }
    }

    pub(super) fn token(&self) -> Result<Token> {
        match &self.source {
            Source::Directory(dir) => read_token(dir),
            Source::Environment(text) => {
                text.parse().map_err(|error: Error| error.with("variable", TOKEN))
            }
        }
    }

    /// Where its token comes from, for errors.
    pub(super) fn token_source(&self) -> String {
        match &self.source {
            Source::Directory(dir) => dir.join(super::home::TOKEN).display().to_string(),
            Source::Environment(_) => TOKEN.to_owned(),
        }
    }

    /// The error for one that is not there.
    #[cold]
    pub(super) fn not_running(&self) -> Error {
        let error = Error::new(ErrorKind::Io, FIND, "the endpoint is configured, but does not run");
        match &self.source {
            Source::Directory(dir) => error
                .with("endpoint", &self.name)
                .with("directory", dir.display())
                .with_hint(format!("start it: `proxystore endpoint start {}`", self.name)),
            Source::Environment(_) => error
                .with("address", self.places.first().map(Place::to_string).unwrap_or_default())
                .with_hint(format!("start it there, or correct {ADDRESS}")),
        }
    }
}

/// The daemons that may be asked, in the order in which to try them: those of the connector's endpoints that are
/// configured here, or else any that is, and then the one that the environment names.
///
/// A home that was given may be one of the site a reference came from: where it has no endpoints, the usual one counts.
pub(super) fn candidates(settings: &Settings) -> Result<Vec<Candidate>> {
    let home = settings.home();
    let mut cards = endpoints_below(&home);
    if cards.is_empty() {
        cards = endpoints_below(&home_dir());
    }
    let mut here: Vec<_> = cards
        .into_iter()
        .filter_map(|(dir, card)| {
            let id = card.endpoint().ok()?; // what is no card is passed over
            Some(Candidate::of_card(dir, card, id))
        })
        .collect();
    let rank = |found: &Candidate| settings.endpoints.iter().position(|id| Some(*id) == found.id);
    if here.iter().any(|found| rank(found).is_some()) {
        here.retain(|found| rank(found).is_some());
        here.sort_by_key(rank);
    }
    here.extend(of_environment());
    if here.is_empty() {
        let ids: Vec<_> = settings.endpoints.iter().map(EndpointId::to_string).collect();
        return Err(Error::new(ErrorKind::Config, FIND, "no endpoint is configured here")
            .with("home", home.display())
            .with("wanted", ids.join(", "))
            .with_hint(format!(
                "`proxystore endpoint configure NAME` and `proxystore endpoint start NAME`, or set \
                 {ADDRESS} and {TOKEN}"
            )));
    }
    Ok(here)
}

/// The daemon that the environment names.
pub(super) fn of_environment() -> Option<Candidate> {
    let variable = |name| env::var(name).ok().filter(|text| !text.is_empty());
    let (address, token) = (variable(ADDRESS)?, variable(TOKEN)?);
    Some(Candidate {
        name: String::new(),
        id: None,
        places: vec![Place::Tcp(address)],
        source: Source::Environment(token),
    })
}

//! Whose references this process resolves.

use std::env;
use std::fs;
use std::sync::OnceLock;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};

use crate::error::{Error, ErrorKind, Result};
use crate::reference::Reference;
use crate::seal;

/// Environment variable with public keys, in hexadecimal and separated by commas, or with the path
/// of a file that holds a key a line.
pub const PRODUCERS: &str = "PROXYSTORE_PRODUCERS";

/// A public key of Ed25519.
pub type PublicKey = [u8; 32];

/// `None` demands nothing; an error is a list that cannot be read.
type Demand = Result<Option<Vec<PublicKey>>, String>;

/// Demands in the order in which they were made; the last one is in force.
///
/// A child of `fork` inherits locks in whatever state other threads had them. A chain that only
/// grows needs none, and demands change a few times in the life of a program.
struct Link {
    demand: Demand,
    next: OnceLock<Box<Self>>,
}

static FIRST: OnceLock<Link> = OnceLock::new();

fn last() -> &'static Link {
    let mut link = if let Some(first) = FIRST.get() {
        first
    } else {
        let demand = from_environment(); // not while the others wait: it may read a file
        FIRST.get_or_init(|| Link { demand, next: OnceLock::new() })
    };
    while let Some(next) = link.next.get() {
        link = next;
    }
    link
}

/// From now on, resolves only references signed by one of these producers; with an empty list,
/// none. `None` demands nothing, whatever the environment says.
///
/// Applies to references that were sent; those that this process makes itself need no signature.
pub fn require_producers(keys: Option<Vec<PublicKey>>) {
    let mut link = Box::new(Link { demand: Ok(keys), next: OnceLock::new() });
    while let Err(back) = last().next.set(link) {
        link = back; // another thread was faster
    }
}

/// Whether references must be signed.
pub fn are_required() -> bool {
    !matches!(last().demand, Ok(None))
}

/// Checks that a reference was signed by a producer this process demands, if it does.
///
/// # Errors
/// [`ErrorKind::Untrusted`] when it was not; [`ErrorKind::Config`] when the list in the environment
/// cannot be read.
pub fn check(reference: &Reference) -> Result<()> {
    match &last().demand {
        Ok(None) => Ok(()),
        demand => check_demanded(demand, reference),
    }
}

#[cold]
fn check_demanded(demand: &Demand, reference: &Reference) -> Result<()> {
    let keys = match demand {
        Ok(keys) => keys.as_deref().unwrap_or_default(),
        Err(cause) => {
            return Err(Error::new(ErrorKind::Config, "read the known producers", cause.clone())
                .with_hint(format!(
                    "set {PRODUCERS} to public keys of 64 hexadecimal digits, separated by \
                     commas, or to a file with one a line"
                )));
        }
    };
    let Some(signature) = &reference.signature else {
        return Err(untrusted(reference, "the reference is not signed").with_hint(
            "have its producer sign what it makes (a store with seal=\"signed\"), or do not \
             require producers here",
        ));
    };
    if !keys.contains(&signature.producer) {
        return Err(untrusted(reference, "its producer is not one of the known")
            .with("producer", HEXLOWER.encode(&signature.producer))
            .with_hint(format!(
                "add the key to {PRODUCERS} or require_producers() if you know whose it is"
            )));
    }
    // Says `None` for no signature, and errs for one that is not the producer's.
    match seal::verify(reference)? {
        Some(producer) if producer == signature.producer => Ok(()),
        _ => Err(untrusted(reference, "its signature was not checked")),
    }
}

fn untrusted(reference: &Reference, cause: &'static str) -> Error {
    Error::new(ErrorKind::Untrusted, "believe a reference", cause)
        .with("store", crate::connectors::without_credentials(&reference.store.name))
        .with("key", &reference.key)
}

fn from_environment() -> Demand {
    match env::var_os(PRODUCERS).filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => {
            let text = text
                .into_string()
                .map_err(|text| format!("{PRODUCERS} is no UTF-8: {}", text.display()))?;
            read_keys(&text).map(Some)
        }
    }
}

/// The keys in a list, or in the file of that name.
fn read_keys(text: &str) -> Result<Vec<PublicKey>, String> {
    if let Some(keys) = parse(text.split(',')) {
        return Ok(keys);
    }
    let file = fs::read_to_string(text).map_err(|error| {
        format!("{PRODUCERS} holds neither public keys nor the path of a file: {error}")
    })?;
    let lines = file.lines().map(|line| line.split('#').next().unwrap_or_default());
    parse(lines).ok_or_else(|| format!("{text} has a line that is no public key"))
}

fn parse<'a>(keys: impl Iterator<Item = &'a str>) -> Option<Vec<PublicKey>> {
    keys.map(str::trim).filter(|key| !key.is_empty()).map(parse_key).collect()
}

/// A public key from 64 hexadecimal digits.
pub fn parse_key(text: &str) -> Option<PublicKey> {
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectors::ConnectorConfig;
    use crate::key::Key;
    use crate::reference::Signature;
    use crate::store::StoreConfig;

    fn reference(producer: Option<PublicKey>) -> Reference {
        let config = StoreConfig::new("demo", ConnectorConfig::new("memory://demo"));
        let mut reference = Reference::new(config, Key::latest("a"));
        reference.signature = producer.map(|producer| Signature { producer, bytes: [0; 64] });
        reference
    }

    #[test]
    fn unsigned_and_unknown_are_refused() {
        let demand = Ok(Some(vec![[1; 32]]));
        for (producer, cause) in [(None, "not signed"), (Some([2; 32]), &*"02".repeat(32))] {
            let error = check_demanded(&demand, &reference(producer)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Untrusted);
            assert!(error.to_string().contains(cause), "{error}");
        }
        let nobody = Ok(Some(Vec::new()));
        let error = check_demanded(&nobody, &reference(Some([1; 32]))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted);
    }

    #[test]
    fn a_list_that_cannot_be_read_trusts_nobody() {
        let demand = read_keys("nonsense").map(Some);
        let error = check_demanded(&demand, &reference(Some([1; 32]))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(PRODUCERS), "{error}");
    }

    #[test]
    fn keys_are_listed_or_in_a_file() {
        let (one, two) = ("0A".repeat(32), "ff".repeat(32));
        let expected = vec![[0x0a; 32], [0xff; 32]];
        assert_eq!(read_keys(&format!("{one}, {two},")).unwrap(), expected);
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        fs::write(path, format!("# lab\n{one}  # pipeline\n\n{two}\n")).unwrap();
        assert_eq!(read_keys(path).unwrap(), expected);
        fs::write(path, "abc\n").unwrap();
        assert!(read_keys(path).is_err());
        assert!(parse_key(&"g".repeat(64)).is_none() && parse_key("ab").is_none());
    }
}

//! References as one line of text, for queues, command lines and JSON.

use data_encoding::BASE64URL_NOPAD;

use super::{FORMAT, Reference};
use crate::connectors::without_credentials;
use crate::error::{Error, ErrorKind, Result};

/// What every text starts with; the number is the version of the text, not of what it holds.
pub const PREFIX: &str = "pxr1:";

/// What a reference does not say, although resolving may need it: it was written without secrets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// What opens the sealed object.
    pub secret: bool,
    /// User or password of the channel; the reader may have its own.
    pub credentials: bool,
}

impl LeftOut {
    const SECRET: u64 = 1;
    const CREDENTIALS: u64 = 2;

    pub(super) fn bits(self) -> u64 {
        u64::from(self.secret) * Self::SECRET + u64::from(self.credentials) * Self::CREDENTIALS
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self> {
        let bits = FORMAT.whole_varint(value)?;
        Ok(Self { secret: bits & Self::SECRET != 0, credentials: bits & Self::CREDENTIALS != 0 })
    }
}

impl Reference {
    /// The reference as a line of printable ASCII without blanks, without its secrets.
    ///
    /// The secret of a sealed object, an object that travels inside a reference to a sealed store,
    /// and user and password of the channel are left out (see [`without_secrets`]): the text may
    /// be logged. A sealed object cannot be read by it; see [`to_secret_text`].
    ///
    /// ```
    /// # fn main() -> proxystore::Result<()> {
    /// use proxystore::{Reference, Store};
    /// let store = Store::open("memory://text-example")?;
    /// let text = store.proxy("hello".to_owned())?.reference()?.to_text()?;
    /// assert!(text.starts_with("pxr1:"));
    /// assert_eq!(Reference::from_text(&text)?.store.name, "memory://text-example");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Encode`] when the configuration cannot be represented.
    ///
    /// [`without_secrets`]: Self::without_secrets
    /// [`to_secret_text`]: Self::to_secret_text
    pub fn to_text(&self) -> Result<String> {
        self.clone().without_secrets().to_secret_text()
    }

    /// The reference as a line of text with all that it holds: who has the text can read the
    /// object. Keep it out of logs.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`] when the configuration cannot be represented.
    pub fn to_secret_text(&self) -> Result<String> {
        let mut text = PREFIX.to_owned();
        BASE64URL_NOPAD.encode_append(&self.encode()?, &mut text);
        Ok(text)
    }

    /// Reads a text; white space around it is ignored, and nothing is opened or fetched.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for a text that is no reference; [`ErrorKind::Incompatible`] for one
    /// that a newer version wrote.
    pub fn from_text(text: &str) -> Result<Self> {
        let text = text.trim();
        let Some(coded) = text.strip_prefix(PREFIX) else {
            let version = text.strip_prefix("pxr").and_then(|rest| rest.split_once(':'));
            return Err(match version {
                Some((version, _)) if version.parse::<u16>().is_ok() => {
                    FORMAT.newer("version of the text", version)
                }
                _ => not_a_text("it does not start with \"pxr1:\""),
            });
        };
        let bytes = BASE64URL_NOPAD.decode(coded.as_bytes()).map_err(|source| {
            not_a_text("it is not base64url without padding").with_source(source)
        })?;
        Self::decode(&bytes)
    }

    /// The reference without what nobody else may see; [`left_out`](Self::left_out) says what that
    /// was. If it was anything, the signature goes too: it is of the whole.
    #[must_use]
    pub fn without_secrets(mut self) -> Self {
        let is_inside = self.inline.is_some() && self.store.seal().is_some();
        if self.key.seal().is_some() || is_inside {
            self.key = self.key.sealed(None);
            self.inline = None;
            self.left_out.secret = true;
        }
        let connector = self.store.connector.without_credentials();
        let name = without_credentials(&self.store.name);
        if connector != self.store.connector || name != self.store.name {
            let mut store = (*self.store).clone();
            (store.name, store.connector) = (name.into_owned(), connector);
            self.store = store.into();
            self.left_out.credentials = true;
        }
        if self.left_out != LeftOut::default() {
            self.signature = None; // it is of what was there before
        }
        self
    }

    /// Checks that nothing is missing without which the object cannot be read.
    ///
    /// # Errors
    /// [`ErrorKind::Sealed`] for a reference without the secret of its object.
    pub fn check_complete(&self) -> Result<()> {
        if !self.left_out.secret {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Sealed,
            "resolve a proxy",
            "its object is sealed, and the reference was written as text without the secret",
        )
        .with("store", &self.store.name)
        .with("key", &self.key)
        .with_hint(
            "write the text with its secret: to_secret_text() in Rust, to_text(secret=True) in Python",
        ))
    }
}

/// The text itself is not repeated: it may hold a secret.
fn not_a_text(cause: &'static str) -> Error {
    FORMAT
        .corrupt(cause)
        .with_hint("a proxy as text is one line, \"pxr1:\" and letters, digits, - and _")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::connectors::{ConnectorConfig, Value};
    use crate::{Key, Seal, StoreConfig};

    fn sealed() -> Reference {
        let mut connector = ConnectorConfig::new("redis://user:hush@host:1/0");
        connector.options.insert("password".to_owned(), Value::Text("hush".to_owned()));
        let mut reference = Reference::new(StoreConfig::new("demo", connector), Key::latest("k"));
        reference.key = reference.key.sealed(Some(Seal::new([0xa7; 32], Some([0xb8; 32]))));
        reference
    }

    #[test]
    fn the_text_is_as_documented() {
        let store = StoreConfig::new("memory://a", ConnectorConfig::new("memory://a"));
        let reference = Reference::new(store, Key::latest("k"));
        let text = "pxr1:UFhSAYEKbWVtb3J5Oi8vYYUBaw";
        assert_eq!(reference.to_text().unwrap(), text);
        assert_eq!(Reference::from_text(&format!(" {text}\n")).unwrap(), reference);
    }

    #[test]
    fn what_is_secret_is_left_out_unless_asked_for() {
        let open = Reference::from_text(&sealed().to_text().unwrap()).unwrap();
        assert_eq!(open.left_out, LeftOut { secret: true, credentials: true });
        assert!(open.key.seal().is_none() && open.store.connector.options.is_empty());
        assert_eq!(open.store.connector.url, "redis://host:1/0");
        let error = open.check_complete().unwrap_err().to_string();
        assert!(error.contains("secret") && error.contains("secret=True"), "{error}");

        let secret = Reference::from_text(&sealed().to_secret_text().unwrap()).unwrap();
        assert_eq!(secret, sealed());
        assert_eq!(secret.key.seal(), sealed().key.seal());
        secret.check_complete().unwrap();
    }

    #[test]
    fn an_object_inside_the_reference_is_left_out_if_its_store_seals() {
        let mut reference = sealed();
        reference.key = Key::latest("k");
        reference.inline = Some((*b"payload").into());
        assert!(reference.clone().without_secrets().inline.is_some());
        let mut store = (*reference.store).clone();
        store.settings.insert("seal".to_owned(), Value::Text("signed".to_owned()));
        reference.store = store.into();
        let open = reference.without_secrets();
        assert!(open.inline.is_none() && open.left_out.secret);
    }

    #[test]
    fn other_texts_are_refused_and_not_repeated() {
        let good = sealed().to_secret_text().unwrap();
        let coded = &good[PREFIX.len()..];
        for (bad, kind) in [
            (coded.to_owned(), ErrorKind::Corrupt),
            (format!("{good}="), ErrorKind::Corrupt),
            (format!("pxr1: {coded}"), ErrorKind::Corrupt),
            (format!("{}\n{}", &good[..40], &good[40..]), ErrorKind::Corrupt),
            (good.replace("pxr1", "PXR1"), ErrorKind::Corrupt),
            ("pxr1:".to_owned(), ErrorKind::Corrupt),
            ("pxr1:UFhSAYEKbWVtb3J5Oi8vYYUBax".to_owned(), ErrorKind::Corrupt), // a stray bit
            (good.replace("pxr1", "pxr2"), ErrorKind::Incompatible),
        ] {
            let error = Reference::from_text(&bad).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(!format!("{error:?}").contains(&coded[60..80]), "{error:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_texts_never_panic(text in ".{0,60}") {
            let _ = Reference::from_text(&text);
            let _ = Reference::from_text(&format!("{PREFIX}{text}"));
        }
    }
}

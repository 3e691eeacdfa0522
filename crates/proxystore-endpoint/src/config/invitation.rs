//! One line of text that tells a new endpoint where peers meet and by which secret they admit each other.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use proxystore::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

/// How every invitation begins, with the version of what follows.
const PREFIX: &str = "proxystore-invitation-1:";
/// Bytes of the hash that comes before the rest: a letter that was lost or changed on the way is noticed here, and not by
/// a peer that refuses.
const CHECK: usize = 4;

/// What an endpoint has to know to meet others. Whoever holds the text is let in: send it as you send a password.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Invitation {
    /// `url` of section `[relay]`.
    pub relay: String,
    /// `token` there.
    pub relay_token: String,
    /// `fingerprint` there.
    pub relay_fingerprint: String,
    /// `udp_port` there.
    pub relay_udp_port: u16,
    /// `group_secret` of section `[peers]`; empty in the invitation of a relay, whose operator is to know nothing of it.
    pub group_secret: String,
}

impl Invitation {
    /// As text.
    pub fn reveal(&self) -> Result<String> {
        let json = serde_json::to_vec(self).map_err(|source| {
            Error::new(ErrorKind::Encode, "write an invitation", "it has no form")
                .with_source(source)
        })?;
        let bytes = [&check(&json)[..], &json].concat();
        Ok(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes)))
    }
}

fn check(json: &[u8]) -> [u8; CHECK] {
    *blake3::hash(json).as_bytes().first_chunk().unwrap_or(&[0; CHECK])
}

impl FromStr for Invitation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = |message| {
            Error::new(ErrorKind::Config, "read an invitation", message)
                .with_hint("copy the whole line that `proxystore endpoint invite` or `proxystore relay --invite` printed")
        };
        let coded = text
            .trim()
            .strip_prefix(PREFIX)
            .ok_or_else(|| refused("it does not begin like one"))?;
        let bytes = BASE64URL_NOPAD.decode(coded.as_bytes());
        let bytes = bytes.map_err(|source| refused("it is damaged").with_source(source))?;
        let json = bytes.split_first_chunk().filter(|(found, json)| **found == check(json));
        let (_, json) = json.ok_or_else(|| refused("it is damaged"))?;
        serde_json::from_slice(json).map_err(|source| refused("it is damaged").with_source(source))
    }
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Invitation({}, ..)", self.relay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_revealed_is_read_and_nothing_else() {
        let invitation = Invitation {
            relay: "https://relay.example.org:8443".into(),
            relay_token: "t".into(),
            relay_udp_port: 7842,
            group_secret: "a secret of the group".into(),
            ..Invitation::default()
        };
        let text = invitation.reveal().unwrap();
        assert_eq!(text.parse::<Invitation>().unwrap(), invitation);
        assert_eq!(format!(" {text}\n").parse::<Invitation>().unwrap(), invitation);
        assert!(!format!("{invitation:?}").contains("secret"));
        for wrong in [
            "",
            "proxystore-invitation-1:",
            &text[1..],
            &text[..text.len() - 3],
            "proxystore-invitation-1:e30x",
            &[&text[..60], if &text[60..61] == "A" { "B" } else { "A" }, &text[61..]].concat(),
        ] {
            assert_eq!(
                wrong.parse::<Invitation>().unwrap_err().kind(),
                ErrorKind::Config,
                "{wrong}"
            );
        }
    }
}

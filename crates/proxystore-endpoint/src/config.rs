//! What an endpoint is told in its `config.toml`. Every field has a default.

mod invitation;
mod overrides;
mod template;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use invitation::Invitation;
pub use overrides::overridden;
pub use template::template;

/// A whole `config.toml`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The endpoint's name on this site.
    pub name: String,
    /// Who may connect here, and where.
    pub clients: Clients,
    /// How much is kept, and where.
    pub storage: Storage,
    /// Other endpoints.
    pub peers: Peers,
    /// Where peers meet.
    pub relay: Relay,
    /// Metrics, health and the page.
    pub web: Web,
    /// What is told of what happens.
    pub log: Log,
}

/// Section `[clients]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Clients {
    /// Where clients on other hosts connect: an address, `ip` (this host's), `fqdn` (its name), or
    /// empty for none.
    pub host: String,
    /// The port there; 0 for any.
    pub port: u16,
    /// How many may be connected at once.
    pub connections: usize,
    /// Seconds a client may take to greet, to send the rest of what it began, or to take what it asked for.
    pub patience: u64,
}

impl Default for Clients {
    fn default() -> Self {
        Self { host: String::new(), port: 0, connections: 4096, patience: 30 }
    }
}

/// Section `[storage]`. Sizes are bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// How much memory objects may take, shared memory included.
    #[serde(with = "size")]
    pub memory: u64,
    /// How much disk objects may take that memory has no room for; 0 for none.
    #[serde(with = "size")]
    pub disk: u64,
    /// Where on disk; `objects` in the endpoint's directory where empty.
    pub dir: PathBuf,
    /// Whether objects are written to disk before they are acknowledged, and are there after a restart.
    pub persist: bool,
    /// Whether each is also forced to the device, to be there after a power failure.
    pub sync: bool,
    /// The longest object; 0 for any that fits.
    #[serde(with = "size")]
    pub max_object: u64,
    /// From how many bytes on clients of this host put and get through shared memory; 0 for never.
    #[serde(with = "size")]
    pub shared_from: u64,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            memory: 1 << 30,
            disk: 10 << 30,
            dir: PathBuf::new(),
            persist: false,
            sync: false,
            max_object: 0,
            shared_from: 128 << 10,
        }
    }
}

/// Section `[peers]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Peers {
    /// Whether there are any; an endpoint without is a store of its site.
    pub enabled: bool,
    /// Which UDP port; 0 for any.
    pub port: u16,
    /// Whether peers are talked to directly where that works; else by the relay alone.
    pub direct: bool,
    /// Whoever knows this secret is admitted, with full access.
    pub group_secret: String,
    /// Those who are admitted by name.
    pub allow: Vec<Peer>,
    /// How many parts of a large object are fetched at once.
    pub streams: usize,
    /// How much of the memory may hold copies of peers' objects; 0 for none.
    #[serde(with = "size")]
    pub cache: u64,
    /// `cubic`, `bbr` (for long paths that lose packets) or `newreno`.
    pub congestion: String,
}

impl Default for Peers {
    fn default() -> Self {
        Self {
            enabled: true,
            port: 0,
            direct: true,
            group_secret: String::new(),
            allow: Vec::new(),
            streams: 4,
            cache: 0,
            congestion: "cubic".into(),
        }
    }
}

/// One entry of `[[peers.allow]]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Peer {
    /// Its public key.
    pub id: String,
    /// What it is called here.
    pub name: String,
    /// The relay by which it is reached; this endpoint's own where empty.
    pub relay: String,
    /// Addresses at which it may be reached without a relay, `HOST:PORT`.
    pub addresses: Vec<String>,
    /// `full`, or `read` where it may get and wait, and nothing else.
    pub access: Access,
}

/// What a peer may do here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Everything a client may do with objects.
    #[default]
    Full,
    /// Get and wait.
    Read,
}

/// Section `[relay]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Relay {
    /// `https://HOST:PORT`; empty for none, and then peers must be reachable by address.
    pub url: String,
    /// What the relay asks for, if it does.
    pub token: String,
    /// SHA-256 of the relay's certificate, which is then believed whoever signed it.
    pub fingerprint: String,
    /// File with the certificate authority of the relay; those that browsers know where empty.
    pub ca_file: PathBuf,
    /// UDP port at which the relay tells addresses; 0 for none, and then no NAT is passed directly.
    pub udp_port: u16,
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            url: String::new(),
            token: String::new(),
            fingerprint: String::new(),
            ca_file: PathBuf::new(),
            udp_port: 7842,
        }
    }
}

/// Section `[web]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Web {
    /// Where metrics, health and the page are served; none (`""`) for nowhere. Keep it local: there is no
    /// password.
    #[serde(with = "address")]
    pub address: Option<SocketAddr>,
}

impl Default for Web {
    fn default() -> Self {
        Self { address: Some(SocketAddr::from(([127, 0, 0, 1], 0))) }
    }
}

mod address {
    use std::net::SocketAddr;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "as serde calls it")]
    pub(super) fn serialize<S: Serializer>(
        address: &Option<SocketAddr>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        out.serialize_str(&address.map(|address| address.to_string()).unwrap_or_default())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        input: D,
    ) -> Result<Option<SocketAddr>, D::Error> {
        let text = String::deserialize(input)?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_not_an_address| {
            D::Error::custom(format!(
                "{text:?} is no address; write \"127.0.0.1:8080\", or \"\" for none"
            ))
        })
    }
}

/// Section `[log]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`, or directives such as `info,iroh=debug`.
    pub level: String,
    /// Whether each line is a JSON object.
    pub json: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), json: false }
    }
}

/// Sizes as people write them: `"1.5 GB"`, `"64 KiB"`, or a number of bytes.
pub mod size {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    const UNITS: &[(&str, u64)] = &[
        ("B", 1),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("KIB", 1 << 10),
        ("MIB", 1 << 20),
        ("GIB", 1 << 30),
        ("TIB", 1 << 40),
    ];

    /// The number of bytes of a text, or `None`.
    pub fn parse(text: &str) -> Option<u64> {
        let text = text.trim();
        let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
        let (number, unit) = (text[..unit_at].trim(), text[unit_at..].trim().to_ascii_uppercase());
        let factor =
            UNITS.iter().find(|(name, _)| *name == unit || unit.is_empty() && *name == "B")?.1;
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(factor);
        }
        #[expect(clippy::cast_precision_loss, reason = "people write few digits")]
        let bytes = number.parse::<f64>().ok()? * factor as f64;
        #[expect(clippy::cast_sign_loss, reason = "just compared with zero")]
        (0.0..1e19).contains(&bytes).then_some(bytes as u64)
    }

    /// As a number where it is none of a unit, else the largest unit that divides it.
    pub fn format(bytes: u64) -> String {
        let unit =
            UNITS.iter().rev().filter(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor));
        match unit.max_by_key(|(_, factor)| *factor) {
            Some((name, factor)) => format!("{} {}", bytes / factor, name.replace("IB", "iB")),
            None => bytes.to_string(),
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    pub(crate) fn serialize<S: Serializer>(bytes: &u64, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&format(*bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<u64, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Size {
            Number(u64),
            Text(String),
        }
        match Size::deserialize(input)? {
            Size::Number(bytes) => Ok(bytes),
            Size::Text(text) => parse(&text).ok_or_else(|| {
                D::Error::custom(format!("{text:?} is no size; write \"64 MiB\" or \"1.5 GB\""))
            }),
        }
    }
}

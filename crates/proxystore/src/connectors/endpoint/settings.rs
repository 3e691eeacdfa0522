//! What a configuration says: which endpoints, where their cards are, and how they may be reached.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::find::of_environment;
use super::home::{endpoints_below, home_dir};
use super::link::{Link, is_absent};
use super::stream::Patience;
use crate::connectors::given::Given;
use crate::connectors::{ConnectorConfig, Value, known_options};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::EndpointId;

pub(super) const OPEN: &str = "open an endpoint connector";

const SCHEME: &str = "endpoint:";
const NAMES: [&str; 4] = ["namespace", "home", "hints", "timeout"];

/// How long a daemon may be silent where the configuration does not say.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// Whose objects these are, in the order in which they are preferred; at least one.
    pub(super) endpoints: Vec<EndpointId>,
    /// Names the channel.
    pub(super) url: String,
    /// First part of the ids made here: what `close` with `clear` removes.
    pub(super) namespace: String,
    /// Below which directory the cards are, if it was given.
    home: Option<String>,
    /// By which relays endpoints may be reached.
    pub(super) hints: Vec<(EndpointId, String)>,
    /// How long a daemon may stay silent.
    pub(super) timeout: Duration,
    /// As they were given.
    options: BTreeMap<String, Value>,
}

impl Settings {
    pub(super) fn parse(config: &ConnectorConfig) -> Result<Self> {
        known_options(OPEN, config, &NAMES)?;
        let given = Given { operation: OPEN, url: &config.url, options: &config.options };
        let home = given.text("home")?;
        let timeout = given.seconds("timeout")?.unwrap_or(TIMEOUT);
        let endpoints = endpoints_of(&config.url, home.as_deref(), timeout)?;
        Ok(Self {
            url: url_of(&endpoints),
            namespace: given.namespace()?,
            hints: hints_of(&given)?,
            timeout,
            options: config.options.clone(),
            home,
            endpoints,
        })
    }

    /// Below which directory the cards are.
    pub(super) fn home(&self) -> PathBuf {
        self.home.as_ref().map_or_else(home_dir, PathBuf::from)
    }

    /// The configuration of an equal connector, elsewhere too. `own` is the endpoint that is asked from here, and
    /// its relay.
    pub(super) fn config(&self, own: Option<(EndpointId, &str)>) -> ConnectorConfig {
        let mut config = ConnectorConfig { url: self.url.clone(), options: self.options.clone() };
        config.options.insert("namespace".into(), Value::Text(self.namespace.clone()));
        let mut hints = self.hints.clone();
        if let Some((id, relay)) = own
            && self.endpoints.contains(&id)
            && !hints.iter().any(|(hinted, _)| *hinted == id)
        {
            hints.push((id, relay.to_owned()));
        }
        if !hints.is_empty() {
            let hints = hints.iter().map(|(id, relay)| Value::Text(format!("{id}@{relay}")));
            config.options.insert("hints".into(), Value::List(hints.collect()));
        }
        config
    }
}

/// The URL as all connectors to these endpoints write it; `None` where it does not have their ids.
pub(in crate::connectors) fn identity(url: &str) -> Option<String> {
    let list = url.strip_prefix(SCHEME)?;
    let ids: Result<Vec<_>> = list.split(',').map(|id| id.trim().parse()).collect();
    ids.ok().map(|ids| url_of(&ids))
}

fn url_of(endpoints: &[EndpointId]) -> String {
    let ids: Vec<_> = endpoints.iter().map(EndpointId::to_string).collect();
    format!("{SCHEME}{}", ids.join(","))
}

/// The endpoints of a URL: ids, and what endpoints that are configured here are called, or the one that the environment
/// names, which is asked.
fn endpoints_of(url: &str, home: Option<&str>, timeout: Duration) -> Result<Vec<EndpointId>> {
    let wrong = |cause: &'static str| {
        Error::new(ErrorKind::Config, OPEN, cause).with("url", url).with_hint(
            "write endpoint:ID or endpoint:ID,ID; `proxystore endpoint list` shows the ids of yours",
        )
    };
    let list = url.strip_prefix(SCHEME).ok_or_else(|| wrong("the URL is not one of endpoints"))?;
    let mut endpoints: Vec<EndpointId> = Vec::new();
    for text in list.split(',').map(str::trim) {
        let endpoint = match text.parse() {
            Ok(endpoint) => endpoint,
            Err(_) if text.is_empty() => return Err(wrong("an endpoint's id is missing")),
            Err(_) => {
                let home = home.map_or_else(home_dir, PathBuf::from);
                let mut known = endpoints_below(&home).into_iter().map(|(_, card)| card);
                let none = "no endpoint of this name is configured here, and it is no id either";
                match known.find(|card| card.is_called(text)) {
                    Some(card) => card.endpoint()?,
                    None => named_by_environment(text, timeout)?.ok_or_else(|| {
                        wrong(none).with("endpoint", text).with("home", home.display())
                    })?,
                }
            }
        };
        if !endpoints.contains(&endpoint) {
            endpoints.push(endpoint);
        }
    }
    Ok(endpoints)
}

/// The id of the daemon that the environment names, if it is called so: by name, UUID or address.
fn named_by_environment(text: &str, timeout: Duration) -> Result<Option<EndpointId>> {
    let Some(candidate) = of_environment() else { return Ok(None) };
    let patience = Patience { silence: timeout, deadline: None };
    for place in &candidate.places {
        let link = Link::open(OPEN, &candidate, place, patience)
            .map_err(|error| if is_absent(&error) { candidate.not_running() } else { error })?;
        let id = link.daemon.id;
        let names = [link.daemon.welcome.name.clone(), id.uuid(), place.to_string()];
        if names.iter().any(|name| name == text) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

fn hints_of(given: &Given<'_>) -> Result<Vec<(EndpointId, String)>> {
    let wrong = || given.wrong("hints").with_hint("it is a list of texts, each ID@RELAY-URL");
    match given.options.get("hints") {
        None => Ok(Vec::new()),
        Some(Value::List(hints)) => hints
            .iter()
            .map(|hint| match hint {
                Value::Text(hint) => {
                    let (id, relay) = hint.split_once('@').ok_or_else(wrong)?;
                    Ok((id.parse().map_err(|error| wrong().with_source(error))?, relay.to_owned()))
                }
                _ => Err(wrong()),
            })
            .collect(),
        Some(_) => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> EndpointId {
        EndpointId::from_bytes([byte; 32])
    }

    #[test]
    fn a_url_names_endpoints_in_one_way() {
        let (one, two) = (id(1), id(2));
        let odd = format!("endpoint:{}, {}", one.to_string().to_uppercase(), "02".repeat(32));
        let config = ConnectorConfig::new(&odd);
        let settings = Settings::parse(&config).unwrap();
        assert_eq!(settings.endpoints, [one, two]);
        assert_eq!(settings.url, format!("endpoint:{one},{two}"));
        assert!(config.same_channel(&settings.config(None)));
        for url in ["endpoint:", "endpoint:a,,b", "endpoint:nobody", "redis://x"] {
            let mut config = ConnectorConfig::new(url);
            config.options.insert("home".into(), Value::Text("/nowhere".into()));
            assert_eq!(Settings::parse(&config).unwrap_err().kind(), ErrorKind::Config, "{url}");
        }
    }

    #[test]
    fn what_travels_is_enough_to_reach_the_endpoint_and_no_more() {
        let mut config = ConnectorConfig::new(format!("endpoint:{}", id(1)));
        let settings = Settings::parse(&config).unwrap();
        let told = settings.config(Some((id(1), "https://relay")));
        let names: Vec<_> = told.options.keys().map(String::as_str).collect();
        assert_eq!(names, ["hints", "namespace"]);
        let again = Settings::parse(&told).unwrap();
        assert_eq!(again.hints, [(id(1), "https://relay".to_owned())]);
        assert_eq!(again.namespace, settings.namespace);
        assert_eq!(again.config(Some((id(1), "https://other"))), told, "the first word counts");
        assert_eq!(settings.config(Some((id(2), "https://relay"))).options.len(), 1);

        config.options.insert("hints".into(), Value::List(vec![Value::Text("x@y".into())]));
        let error = Settings::parse(&config).unwrap_err();
        assert!(error.to_string().contains("hints"), "{error}");
    }
}

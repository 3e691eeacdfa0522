//! Which objects a part takes, and on which hosts it is used.

use std::collections::BTreeMap;
use std::fmt;

use regex_lite::Regex;

use crate::connectors::{Tags, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::facts::host_name;

const PRIORITY: &str = "priority";
const HOST_PATTERN: &str = "host_pattern";
const MIN_SIZE: &str = "min_size_bytes";
const MAX_SIZE: &str = "max_size_bytes";
const SUBSET_TAGS: &str = "subset_tags";
const SUPERSET_TAGS: &str = "superset_tags";

/// Which objects a part takes, and on which hosts it is used; the default takes everything.
///
/// ```
/// use proxystore::connectors::Tags;
/// use proxystore::connectors::multi::Policy;
///
/// let policy = Policy { max_size_bytes: 1000, ..Policy::default() };
/// assert!(policy.is_valid(Some(1000), &Tags::default()));
/// assert!(!policy.is_valid(Some(1001), &Tags::default()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Parts of higher priority are asked first.
    pub priority: i64,
    /// Regular expressions, one of which must match the whole name of the host; `None` for all
    /// hosts.
    pub host_pattern: Option<Vec<String>>,
    /// Bytes, as stored, of the smallest objects it takes.
    pub min_size_bytes: u64,
    /// Bytes, as stored, of the largest objects it takes; `u64::MAX` for no limit.
    pub max_size_bytes: u64,
    /// The [`Tags::subset`] of an object must all be among these.
    pub subset_tags: Vec<String>,
    /// The [`Tags::superset`] of an object must contain all of these.
    pub superset_tags: Vec<String>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            priority: 0,
            host_pattern: None,
            min_size_bytes: 0,
            max_size_bytes: u64::MAX,
            subset_tags: Vec::new(),
            superset_tags: Vec::new(),
        }
    }
}

impl Policy {
    /// Whether it takes objects of this size (any size when `None`) and with these tags.
    pub fn is_valid(&self, size: Option<u64>, tags: &Tags) -> bool {
        self.refusal(size, tags).is_none()
    }

    /// Whether it is for this host.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming a pattern that is no regular expression.
    pub fn is_valid_on_host(&self) -> Result<bool> {
        let Some(patterns) = &self.host_pattern else {
            return Ok(true);
        };
        let mut valid = false;
        for pattern in patterns {
            valid |= matches_all_of(pattern, host_name())?;
        }
        Ok(valid)
    }

    pub(super) fn refusal(&self, size: Option<u64>, tags: &Tags) -> Option<Refusal<'_>> {
        let all_in = |some: &[String], all: &[String]| some.iter().all(|tag| all.contains(tag));
        match size {
            Some(size) if size < self.min_size_bytes => Some(Refusal::Smaller(self.min_size_bytes)),
            Some(size) if size > self.max_size_bytes => Some(Refusal::Larger(self.max_size_bytes)),
            _ if !all_in(&tags.subset, &self.subset_tags) => {
                Some(Refusal::Subset(&self.subset_tags))
            }
            _ if !all_in(&self.superset_tags, &tags.superset) => {
                Some(Refusal::Superset(&self.superset_tags))
            }
            _ => None,
        }
    }

    /// Why this host is none of its own.
    pub(super) fn host_refusal(&self) -> String {
        let patterns = self.host_pattern.as_deref().unwrap_or_default();
        let quoted: Vec<_> = patterns.iter().map(|pattern| format!("{pattern:?}")).collect();
        format!(
            "its host_pattern {} does not match the name of this host, {:?}",
            quoted.join(", "),
            host_name()
        )
    }

    /// From plain values by the names of the fields; those left out have their defaults.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming a field that is unknown or of another type.
    pub fn from_settings(settings: &BTreeMap<String, Value>) -> Result<Self> {
        let mut policy = Self::default();
        for (name, value) in settings {
            let known = match name.as_str() {
                PRIORITY => set(&mut policy.priority, number(value)),
                HOST_PATTERN => match value {
                    Value::Text(pattern) => {
                        set(&mut policy.host_pattern, Some(Some(vec![pattern.clone()])))
                    }
                    patterns => set(&mut policy.host_pattern, texts(patterns).map(Some)),
                },
                MIN_SIZE => set(&mut policy.min_size_bytes, size(value)),
                MAX_SIZE => set(&mut policy.max_size_bytes, size(value)),
                SUBSET_TAGS => set(&mut policy.subset_tags, texts(value)),
                SUPERSET_TAGS => set(&mut policy.superset_tags, texts(value)),
                _ => false,
            };
            if !known {
                return Err(Error::new(
                    ErrorKind::Config,
                    "read a policy",
                    "a field is unknown or has a value of another type",
                )
                .with("field", format_args!("{name:?}"))
                .with("value", format_args!("{value:?}"))
                .with_hint(
                    "priority, min_size_bytes and max_size_bytes are integers, subset_tags and \
                     superset_tags lists of texts, host_pattern is a text or a list of texts",
                ));
            }
        }
        Ok(policy)
    }

    /// The fields that differ from the defaults, as plain values.
    pub fn to_settings(&self) -> BTreeMap<String, Value> {
        let list = |texts: &[String]| Value::List(texts.iter().cloned().map(Value::Text).collect());
        let size = |size: u64| Value::Int(i64::try_from(size).unwrap_or(i64::MAX));
        let host_pattern = match self.host_pattern.as_deref() {
            Some([pattern]) => Value::Text(pattern.clone()),
            patterns => list(patterns.unwrap_or_default()),
        };
        let default = Self::default();
        [
            (PRIORITY, self.priority != 0, Value::Int(self.priority)),
            (HOST_PATTERN, self.host_pattern.is_some(), host_pattern),
            (MIN_SIZE, self.min_size_bytes != 0, size(self.min_size_bytes)),
            (MAX_SIZE, self.max_size_bytes != default.max_size_bytes, size(self.max_size_bytes)),
            (SUBSET_TAGS, !self.subset_tags.is_empty(), list(&self.subset_tags)),
            (SUPERSET_TAGS, !self.superset_tags.is_empty(), list(&self.superset_tags)),
        ]
        .into_iter()
        .filter(|(_, differs, _)| *differs)
        .map(|(name, _, value)| (name.to_owned(), value))
        .collect()
    }
}

fn set<T>(field: &mut T, value: Option<T>) -> bool {
    value.map(|value| *field = value).is_some()
}

fn number(value: &Value) -> Option<i64> {
    if let Value::Int(number) = value { Some(*number) } else { None }
}

/// The largest number that a setting can hold stands for no limit.
fn size(value: &Value) -> Option<u64> {
    match number(value)? {
        i64::MAX => Some(u64::MAX),
        size => u64::try_from(size).ok(),
    }
}

fn texts(value: &Value) -> Option<Vec<String>> {
    let Value::List(items) = value else { return None };
    let text = |item: &Value| if let Value::Text(text) = item { Some(text.clone()) } else { None };
    items.iter().map(text).collect()
}

fn matches_all_of(pattern: &str, host: &str) -> Result<bool> {
    let wrong = |source: regex_lite::Error| {
        Error::new(ErrorKind::Config, "read a policy", "its host_pattern is no regular expression")
            .with("pattern", format_args!("{pattern:?}"))
            .with("cause", &source)
            .with_source(source)
    };
    Regex::new(pattern).map_err(wrong)?; // on its own, so that it cannot break out of the next
    Ok(Regex::new(&format!("^(?:{pattern})$")).map_err(wrong)?.is_match(host))
}

/// Why a part does not take an object.
#[derive(Debug, Clone, Copy)]
pub(super) enum Refusal<'a> {
    Off(&'a str),
    Smaller(u64),
    Larger(u64),
    UnknownSize(u64),
    Subset(&'a [String]),
    Superset(&'a [String]),
    NoTtl,
    NoDeferredKeys,
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off(why) => f.write_str(why),
            Self::Smaller(limit) => write!(f, "min_size_bytes is {limit}"),
            Self::Larger(limit) => write!(f, "max_size_bytes is {limit}"),
            Self::UnknownSize(limit) => {
                write!(f, "max_size_bytes is {limit}, and the size is not known yet")
            }
            Self::Subset(tags) => write!(f, "not all subset_tags are among its {tags:?}"),
            Self::Superset(tags) => write!(f, "superset_tags lack some of its {tags:?}"),
            Self::NoTtl => f.write_str("its channel has no time to live"),
            Self::NoDeferredKeys => f.write_str("its channel has no deferred keys"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_pattern_matches_the_whole_name() {
        for (pattern, host, expected) in [
            ("node", "node", true),
            ("node", "node7", false),
            ("node|node7", "node7", true),
            (r"node\d+(\.site)?", "node12.site", true),
            (r"node\d+", "xnode1", false),
            ("", "node", false),
        ] {
            assert_eq!(matches_all_of(pattern, host).unwrap(), expected, "{pattern} {host}");
        }
        for broken in ["(", "a)|(b"] {
            let error = matches_all_of(broken, "node").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        }
    }

    #[test]
    fn patterns_are_alternatives_and_none_is_for_all_hosts() {
        let on = |host_pattern: Option<Vec<&str>>| {
            let host_pattern = host_pattern.map(|all| all.into_iter().map(str::to_owned).collect());
            Policy { host_pattern, ..Policy::default() }.is_valid_on_host().unwrap()
        };
        assert!(on(None) && on(Some(vec!["no such host", ".*"])));
        assert!(!on(Some(vec!["no such host"])) && !on(Some(vec![])));
    }

    #[test]
    fn settings_are_those_that_differ_and_survive_the_trip() {
        assert!(Policy::default().to_settings().is_empty());
        let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let policy = Policy {
            priority: -3,
            host_pattern: Some(texts(&["a.*"])),
            min_size_bytes: 1,
            max_size_bytes: 1 << 40,
            subset_tags: texts(&["x", "y"]),
            superset_tags: texts(&["z"]),
        };
        for policy in [
            Policy { host_pattern: Some(texts(&["a", "b"])), ..policy.clone() },
            Policy { host_pattern: Some(vec![]), ..Policy::default() },
            policy,
        ] {
            assert_eq!(Policy::from_settings(&policy.to_settings()).unwrap(), policy);
        }
        let limit = [(MAX_SIZE.to_owned(), Value::Int(i64::MAX))].into();
        assert_eq!(Policy::from_settings(&limit).unwrap(), Policy::default());
    }

    #[test]
    fn wrong_settings_are_named() {
        for (name, value) in [
            ("speed", Value::Int(1)),
            (PRIORITY, Value::Bool(true)),
            (MIN_SIZE, Value::Int(-1)),
            (SUBSET_TAGS, Value::Text("a".to_owned())),
            (SUPERSET_TAGS, Value::List(vec![Value::Int(1)])),
        ] {
            let error = Policy::from_settings(&[(name.to_owned(), value)].into()).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}

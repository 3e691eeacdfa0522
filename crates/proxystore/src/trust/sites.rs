//! Where the objects of a store may be resolved.
//!
//! The policy is a setting of the store, so it travels in its references. Where a consumer has a
//! store of the same name, with another policy or none, both policies have to permit.

use std::env;
use std::fmt;

use crate::connectors::Value;
use crate::error::{Error, ErrorKind, Result};
use crate::store::StoreConfig;
use crate::trust::patterns::matches;

/// Setting of a store: the patterns of host names and site names where it may be read.
pub const SITES: &str = "sites";

/// Environment variable with the name of the site that this process runs at.
pub const SITE: &str = "PROXYSTORE_SITE";

/// By which names a policy may call the place where this process runs.
#[derive(Debug)]
struct Here {
    host: String,
    site: Option<String>,
}

impl Here {
    fn now() -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let site = env::var(SITE).ok().filter(|site| !site.is_empty());
        Self { host, site }
    }

    fn is_one_of(&self, patterns: &[&str]) -> bool {
        let short = self.host.split('.').next().unwrap_or_default();
        let names = [Some(self.host.as_str()), Some(short), self.site.as_deref()];
        names.into_iter().flatten().any(|name| patterns.iter().any(|p| matches(p, name)))
    }
}

impl fmt::Display for Here {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.site {
            Some(site) => write!(f, "{site} (host {})", self.host),
            None => write!(f, "host {}", self.host),
        }
    }
}

/// Checks that objects of a store may be resolved by this process.
///
/// # Errors
/// [`ErrorKind::Forbidden`] naming this site and the allowed ones.
pub fn check(config: &StoreConfig) -> Result<()> {
    match config.settings.get(SITES) {
        None => Ok(()),
        Some(policy) => check_policy(&config.name, policy, &Here::now()),
    }
}

fn check_policy(store: &str, policy: &Value, here: &Here) -> Result<()> {
    let Some(patterns) = texts(policy) else {
        return Err(forbidden(store, "its policy of sites cannot be read, so it permits none")
            .with_hint("give the store's sites as a list of texts"));
    };
    if here.is_one_of(&patterns) {
        return Ok(());
    }
    let allowed = if patterns.is_empty() { "none".to_owned() } else { patterns.join(", ") };
    Err(forbidden(store, "its store's policy forbids that at this site")
        .with("here", here)
        .with("allowed", allowed)
        .with_hint(format!(
            "run this at an allowed site, set {SITE} if this host belongs to one under another \
             name, or ask the owner of the store to add this site"
        )))
}

fn texts(policy: &Value) -> Option<Vec<&str>> {
    let Value::List(items) = policy else { return None };
    items
        .iter()
        .map(|item| match item {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
        .collect()
}

#[cold]
fn forbidden(store: &str, cause: &'static str) -> Error {
    Error::new(ErrorKind::Forbidden, "resolve an object", cause)
        .with("store", crate::connectors::without_credentials(store))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_permitted(patterns: &[&str], host: &str, site: Option<&str>) -> bool {
        let text = |pattern: &&str| Value::Text((*pattern).to_owned());
        let policy = Value::List(patterns.iter().map(text).collect());
        let here = Here { host: host.to_owned(), site: site.map(str::to_owned) };
        check_policy("demo", &policy, &here).is_ok()
    }

    #[test]
    fn host_short_name_and_site_are_names_of_the_place() {
        let host = "login1.polaris.alcf.anl.gov";
        assert!(is_permitted(&["*.ALCF.anl.gov"], host, None));
        assert!(is_permitted(&["login?"], host, None));
        assert!(is_permitted(&["aurora", "polaris"], "x3006", Some("Polaris")));
        assert!(!is_permitted(&["polaris"], host, None));
        assert!(!is_permitted(&["alcf.anl.gov"], host, Some("home")));
        assert!(!is_permitted(&[], host, Some("home")));
    }

    #[test]
    fn the_error_names_both_sides_and_what_to_do() {
        let policy = Value::List(vec![Value::Text("polaris".to_owned())]);
        let here = Here { host: "laptop".to_owned(), site: Some("home".to_owned()) };
        let error = check_policy("redis://user:hush@h", &policy, &here).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Forbidden);
        let text = error.to_string();
        for part in ["home (host laptop)", "allowed=polaris", SITE, "redis://h"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("hush"), "{text}");
    }

    #[test]
    fn what_cannot_be_read_permits_nothing() {
        let here = Here { host: "laptop".to_owned(), site: None };
        for policy in [Value::Text("*".to_owned()), Value::List(vec![Value::Int(1)])] {
            let error = check_policy("demo", &policy, &here).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Forbidden);
        }
    }
}

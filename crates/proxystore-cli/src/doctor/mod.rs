//! `proxystore doctor`: what keeps endpoints from working, and what to do about it.

mod endpoint;
mod host;
mod network;

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use proxystore::connectors::endpoint::home::{Card, endpoints_below};
use proxystore::{Error, Result};
use proxystore_endpoint::directory::Directory;
use serde::Serialize;

use crate::endpoint::find;
use crate::output;

#[derive(Debug, Default, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Doctor {
    /// The endpoint that is looked at: its name, id or UUID [default: all of this user]
    name: Option<String>,
    /// A peer to be reached: its id, or what it is called here
    #[arg(long, requires = "name")]
    peer: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  proxystore doctor
  proxystore doctor site-a --peer site-b
  proxystore doctor --json | jq '.[] | select(.verdict != \"ok\")'

The exit code is 1 when there is a problem; warnings are none.";

/// How it is with one thing.
#[derive(Debug, Serialize)]
struct Finding {
    /// The endpoint, or `host`.
    about: String,
    what: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
    Problem,
}

/// What was found about one endpoint, or the host.
struct Findings<'a> {
    about: String,
    all: &'a mut Vec<Finding>,
}

impl Findings<'_> {
    fn ok(&mut self, what: &'static str, found: impl Into<String>) {
        self.add(what, Verdict::Ok, found.into(), None);
    }

    fn warning(&mut self, what: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.add(what, Verdict::Warning, found.into(), Some(remedy.into()));
    }

    fn problem(&mut self, what: &'static str, found: impl Into<String>, remedy: impl Into<String>) {
        self.add(what, Verdict::Problem, found.into(), Some(remedy.into()));
    }

    fn failed(&mut self, what: &'static str, error: &Error) {
        let mut found = error.message().to_owned();
        for (name, value) in error.context() {
            found.extend([", ", name, " ", value]);
        }
        self.add(what, Verdict::Problem, found, error.hint().map(str::to_owned));
    }

    fn add(&mut self, what: &'static str, verdict: Verdict, found: String, remedy: Option<String>) {
        let finding = Finding { about: self.about.clone(), what, verdict, found, remedy };
        self.all.push(finding);
    }
}

pub(crate) fn doctor(home: &Path, args: &Doctor) -> Result<ExitCode> {
    let endpoints: Vec<(Directory, Card)> = if let Some(name) = &args.name {
        vec![find(home, name)?]
    } else {
        let all = endpoints_below(home).into_iter();
        all.map(|(path, card)| (Directory::at(path), card)).collect()
    };
    let mut all = Vec::new();
    host::look(home, &mut Findings { about: "host".into(), all: &mut all });
    let mut pictures = Vec::new();
    for (directory, card) in &endpoints {
        let mut findings = Findings { about: card.name.clone(), all: &mut all };
        let peer = args.peer.as_deref();
        pictures.extend(endpoint::look(home, directory, card, peer, &mut findings));
    }
    if endpoints.is_empty() {
        Findings { about: "host".into(), all: &mut all }.warning(
            "endpoints",
            format!("there are none in {}", home.display()),
            "make one: `proxystore endpoint configure NAME`",
        );
    }
    if args.json {
        let text = serde_json::to_string_pretty(&all).map_err(|source| {
            Error::new(proxystore::ErrorKind::Encode, "tell what was found", "it has no form")
                .with_source(source)
        })?;
        output::data(text);
    } else {
        tell(&all);
        pictures.iter().for_each(output::data);
    }
    let ill = all.iter().any(|finding| finding.verdict == Verdict::Problem);
    Ok(if ill { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn tell(all: &[Finding]) {
    let mut about = "";
    for finding in all {
        if finding.about != about {
            about = &finding.about;
            output::data(about);
        }
        let verdict = match finding.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Problem => "PROBLEM",
        };
        output::data(format!("  {verdict:<8} {:<14} {}", finding.what, finding.found));
        if let Some(remedy) = &finding.remedy {
            output::data(format!("           {:<14} -> {remedy}", ""));
        }
    }
}

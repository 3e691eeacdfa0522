//! `proxystore endpoint test`: one object by hand.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use proxystore::key::unique_id;
use proxystore::wire::{Answer, EndpointId, Name, Request};
use proxystore::{Error, ErrorKind, Result};

use super::{find, peer};
use crate::client::Client;
use crate::output;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Test {
    /// The endpoint of this site that is asked: its name, id or UUID
    pub(crate) name: String,
    /// The peer that keeps the object: its id, or what it is called here
    #[arg(long, value_name = "PEER")]
    pub(crate) remote: Option<String>,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Print an object
    Get {
        /// Its key
        key: String,
    },
    /// Say whether there is an object
    Exists {
        /// Its key
        key: String,
    },
    /// Remove an object
    Evict {
        /// Its key
        key: String,
    },
    /// Store an object and print its key
    Put {
        /// What is stored
        data: String,
    },
}

const EXAMPLES: &str = "\
Examples:
  key=$(proxystore endpoint test site-a put hello)
  proxystore endpoint test site-a get $key
  proxystore endpoint test site-a --remote site-b exists test.1

The exit code of get and exists is 1 when there is no such object.";

pub(crate) fn test(home: &Path, args: &Test) -> Result<ExitCode> {
    let (directory, card) = find(home, &args.name)?;
    let endpoint = match &args.remote {
        Some(called) => peer(home, &directory.config()?, called)?,
        None => card.endpoint()?,
    };
    let mut client = Client::connect(&directory, Duration::from_mins(1))?;
    match &args.verb {
        Verb::Put { data } => {
            let key = put(&mut client, endpoint, data.as_bytes())?;
            output::data(key);
            Ok(ExitCode::SUCCESS)
        }
        Verb::Get { key } => match get(&mut client, endpoint, key)? {
            Some(bytes) => {
                output::raw(&bytes);
                output::raw(b"\n");
                Ok(ExitCode::SUCCESS)
            }
            None => Ok(absent(key)),
        },
        Verb::Exists { key } => {
            let request = Request::Stat { name: current(endpoint, key), hash: false };
            let there = matches!(client.ask(&request, &[])?.0, Answer::Stat(_));
            output::data(there);
            Ok(if there { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Verb::Evict { key } => {
            client.ask(&Request::Evict(current(endpoint, key)), &[])?;
            output::note(format!("There is no object {key} any more."));
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Stores bytes under a fresh key.
fn put(client: &mut Client, endpoint: EndpointId, bytes: &[u8]) -> Result<String> {
    let id = format!("test.{}", unique_id()?);
    let name = Name { endpoint, id: id.clone(), generation: 1 };
    client.ask(&Request::Put { name, ttl: None, shared: None }, bytes)?;
    Ok(id)
}

/// The bytes under a key.
fn get(client: &mut Client, endpoint: EndpointId, key: &str) -> Result<Option<Vec<u8>>> {
    let request = Request::Get { name: current(endpoint, key), range: None, shared: false };
    match client.ask(&request, &[])? {
        (Answer::Object { .. }, bytes) => Ok(Some(bytes)),
        (Answer::Absent, _) => Ok(None),
        _ => Err(Error::new(ErrorKind::Corrupt, "get an object", "the answer is none")),
    }
}

fn current(endpoint: EndpointId, key: &str) -> Name {
    Name { endpoint, id: key.to_owned(), generation: 0 }
}

fn absent(key: &str) -> ExitCode {
    output::note(format!("There is no object {key}."));
    ExitCode::FAILURE
}

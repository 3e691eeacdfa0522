//! The servers of a place: a few idle connections to each, which server has which key, and
//! operations that outlive a broken connection.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use redis::{RedisError, RedisResult, Value};

use super::fault::{Remedy, first_error, remedy, report};
use super::layout::slot;
use super::link::{Access, Link};
use super::place::{Node, Place};
use super::request::Request;
use super::settings::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::fork::PerProcess;

/// Idle connections that are kept to each server.
const IDLE: usize = 16;

/// How often a request is sent on to another server, even if failures are not to be retried.
const REDIRECTS: u32 = 5;

const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Servers {
    place: Place,
    access: Access,
    timeout: Duration,
    retries: u32,
    /// A forked child must neither use nor close its parent's connections: it starts with none.
    state: PerProcess<State>,
}

#[derive(Default)]
struct State {
    idle: Mutex<HashMap<Node, Vec<Link>>>,
    slots: Mutex<Known>,
}

/// What is known of a cluster.
#[derive(Default)]
struct Known {
    slots: Arc<Slots>,
    /// It may be out of date, but its servers can still be asked.
    is_old: bool,
}

/// Which server has which slots: first, last, server.
type Slots = Vec<(u16, u16, Node)>;

/// What an operation is, and until when it may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) operation: &'static str,
    pub(super) id: &'a str,
    pub(super) deadline: Option<Instant>,
}

impl<'a> Call<'a> {
    /// A call that may take as long as the servers let it.
    pub(super) fn of(operation: &'static str, id: &'a str) -> Self {
        Self { operation, id, deadline: None }
    }
}

/// A connection that is in use, and where it leads.
struct Taken {
    link: Link,
    node: Node,
    /// It was idle before, so that it may have broken unnoticed.
    is_used: bool,
}

impl Servers {
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        Ok(Self {
            place: settings.place.clone(),
            access: Access::new(settings)?,
            timeout: settings.timeout,
            retries: settings.retries,
            state: PerProcess::new(State::default),
        })
    }

    /// The answers to a request about one id. It is repeated when the connection breaks, so its
    /// commands must bear being done twice.
    pub(super) fn call(&self, call: Call<'_>, request: &Request<'_>) -> Result<Vec<Value>> {
        self.with_link(call, |link, ask| {
            if ask {
                link.call(Request::default().command(&[b"ASKING"]))?;
            }
            let answers = link.call(request)?;
            first_error(&answers).map_or(Ok(answers), Err)
        })
    }

    /// Runs `work` with a connection to the server of an id, again where an error invites it.
    ///
    /// `work` is told whether the server has to be asked as an exception. Only an error of the
    /// server's own, or success, leaves the connection to others.
    pub(super) fn with_link<T>(
        &self,
        call: Call<'_>,
        mut work: impl FnMut(&mut Link, bool) -> RedisResult<T>,
    ) -> Result<T> {
        let mut redirect: Option<(Node, bool)> = None;
        let (mut failures, mut is_second) = (0, false);
        loop {
            let timeout = self.time_left(call)?;
            let (node, ask) = match redirect.take() {
                Some((node, ask)) => (Ok(node), ask),
                None => (self.node_of(call.id), false),
            };
            let mut at = None;
            let outcome = node.and_then(|node| {
                at = Some((node.clone(), false));
                let mut taken = self.take(node, timeout)?;
                at = Some((taken.node.clone(), taken.is_used));
                let outcome = work(&mut taken.link, ask);
                if outcome.as_ref().err().is_none_or(|error| error.code().is_some()) {
                    self.give_back(taken);
                }
                outcome
            });
            let error = match outcome {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let (node, was_used) = at.map_or((None, false), |(node, used)| (Some(node), used));
            let remedy = remedy(&error, &self.place);
            if remedy == Remedy::Reconnect {
                self.forget_links(node.as_ref());
                self.forget_slots();
                if was_used && !std::mem::replace(&mut is_second, true) {
                    continue; // the server restarted meanwhile: a new connection may do
                }
            }
            let limit = match remedy {
                Remedy::GiveUp => 0,
                Remedy::Move(_) | Remedy::AskOnce(_) => self.retries.max(REDIRECTS),
                Remedy::Reconnect | Remedy::Wait => self.retries,
            };
            if failures >= limit {
                return Err(report(call.operation, error, &self.place, node.as_ref()));
            }
            match remedy {
                Remedy::AskOnce(node) => redirect = Some((node, true)),
                Remedy::Move(node) => {
                    // Not every server knows of it yet, so take this one's word.
                    self.forget_slots();
                    redirect = node.map(|node| (node, false));
                }
                _ => {
                    self.forget_slots();
                    pause(failures, call.deadline);
                }
            }
            failures += 1;
        }
    }

    /// The answers to many requests about an id each, in order, sent together per server; those
    /// that did not get through are repeated one by one.
    ///
    /// `weight` is how many bytes request and answer may have; a group has about 16 MiB.
    pub(super) fn call_all(
        &self,
        call: Call<'_>,
        requests: &[(&str, Request<'_>)],
        weight: impl Fn(usize) -> usize,
    ) -> Result<Vec<Vec<Value>>> {
        const MOST_BYTES: usize = 16 << 20;
        const MOST_REQUESTS: usize = 1000;
        let mut answers: Vec<Option<Vec<Value>>> = vec![None; requests.len()];
        let mut groups: HashMap<Node, (usize, Vec<usize>)> = HashMap::new();
        let send = |group: &[usize], answers: &mut Vec<Option<Vec<Value>>>| {
            self.call_group(call, requests, group, answers)
        };
        for (index, (id, _)) in requests.iter().enumerate() {
            let Ok(node) = self.node_of(id) else { break };
            let (bytes, group) = groups.entry(node).or_default();
            *bytes += weight(index);
            group.push(index);
            if *bytes >= MOST_BYTES || group.len() >= MOST_REQUESTS {
                *bytes = 0;
                let group = std::mem::take(group);
                send(&group, &mut answers)?;
            }
        }
        for (_, group) in groups.values() {
            send(group, &mut answers)?;
        }
        answers
            .into_iter()
            .zip(requests)
            .map(|(answers, (id, request))| match answers {
                Some(answers) => Ok(answers),
                None => self.call(Call { id, ..call }, request),
            })
            .collect()
    }

    /// Sends requests to one server together, and keeps the answers that are no errors.
    fn call_group(
        &self,
        call: Call<'_>,
        requests: &[(&str, Request<'_>)],
        group: &[usize],
        answers: &mut [Option<Vec<Value>>],
    ) -> Result<()> {
        let Some(first) = group.first() else { return Ok(()) };
        let timeout = self.time_left(call)?;
        let mut together = Request::default();
        for index in group {
            together.append(&requests[*index].1);
        }
        let outcome = self.node_of(requests[*first].0).and_then(|node| {
            let mut taken = self.take(node, timeout)?;
            let found = taken.link.call(&together)?;
            self.give_back(taken);
            Ok(found)
        });
        let Ok(found) = outcome else { return Ok(()) };
        let mut found = found.into_iter();
        for index in group {
            let of_request: Vec<_> = found.by_ref().take(requests[*index].1.commands()).collect();
            if first_error(&of_request).is_none() {
                answers[*index] = Some(of_request);
            }
        }
        Ok(())
    }

    /// Calls `work` with a connection to each server that holds keys of its own, again if it
    /// fails.
    pub(super) fn on_every_primary(
        &self,
        operation: &'static str,
        mut work: impl FnMut(&mut Link) -> RedisResult<()>,
    ) -> Result<()> {
        let fail = |error, node: Option<&Node>| report(operation, error, &self.place, node);
        let mut nodes = if self.place.is_cluster {
            let slots = self.slots().map_err(|error| fail(error, None))?;
            slots.iter().map(|(_, _, node)| node.clone()).collect()
        } else {
            self.place.nodes.clone()
        };
        nodes.sort();
        nodes.dedup();
        for node in nodes {
            let mut attempt = || {
                let mut taken = self.take(node.clone(), self.timeout)?;
                work(&mut taken.link)?;
                self.give_back(taken);
                Ok(())
            };
            // An idle connection may have broken unnoticed; a new one has not.
            let outcome = attempt().or_else(|_: RedisError| {
                self.forget_links(Some(&node));
                attempt()
            });
            outcome.map_err(|error| fail(error, Some(&node)))?;
        }
        Ok(())
    }

    /// Closes what is idle.
    pub(super) fn disconnect(&self) {
        let links = std::mem::take(&mut *lock(&self.state.get().idle));
        drop(links); // outside the lock
    }

    fn time_left(&self, call: Call<'_>) -> Result<Duration> {
        let Some(deadline) = call.deadline else { return Ok(self.timeout) };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::new(ErrorKind::Timeout, call.operation, "the deadline has passed")
                .with("channel", &self.place));
        }
        Ok(left.min(self.timeout))
    }

    fn take(&self, node: Node, timeout: Duration) -> RedisResult<Taken> {
        let idle = lock(&self.state.get().idle).get_mut(&node).and_then(Vec::pop);
        let is_used = idle.is_some();
        let mut link = match idle {
            Some(link) => link,
            None => Link::open(&node, &self.access, timeout)?,
        };
        link.set_timeout(timeout)?;
        Ok(Taken { link, node, is_used })
    }

    fn give_back(&self, taken: Taken) {
        let mut idle = lock(&self.state.get().idle);
        let links = idle.entry(taken.node).or_default();
        if links.len() < IDLE {
            links.push(taken.link);
        }
    }

    fn forget_links(&self, node: Option<&Node>) {
        let links = node.and_then(|node| lock(&self.state.get().idle).remove(node));
        drop(links); // outside the lock
    }

    fn forget_slots(&self) {
        lock(&self.state.get().slots).is_old = true;
    }

    /// The server of an id.
    fn node_of(&self, id: &str) -> RedisResult<Node> {
        if !self.place.is_cluster {
            return Ok(self.place.nodes[0].clone());
        }
        let slot = slot(id);
        let slots = self.slots()?;
        let found = slots.iter().find(|(first, last, _)| (*first..=*last).contains(&slot));
        found.map(|(_, _, node)| node.clone()).ok_or_else(|| {
            let cause = format!("no server of the cluster has slot {slot}");
            RedisError::from(std::io::Error::other(cause))
        })
    }

    /// Which server has which slots, asked of the first that answers.
    fn slots(&self) -> RedisResult<Arc<Slots>> {
        let known = {
            let known = lock(&self.state.get().slots);
            if !known.is_old && !known.slots.is_empty() {
                return Ok(Arc::clone(&known.slots));
            }
            Arc::clone(&known.slots)
        };
        let mut failure = None;
        let others = known.iter().map(|(_, _, node)| node);
        for node in self.place.nodes.iter().chain(others) {
            let asked = self.take(node.clone(), self.timeout).and_then(|mut taken| {
                let answers =
                    taken.link.call(Request::default().command(&[b"CLUSTER", b"SLOTS"]))?;
                if let Some(error) = first_error(&answers) {
                    return Err(error);
                }
                self.give_back(taken);
                Ok(slots_of(&answers, node))
            });
            match asked {
                Ok(slots) => {
                    let slots = Arc::new(slots);
                    *lock(&self.state.get().slots) =
                        Known { slots: Arc::clone(&slots), is_old: false };
                    return Ok(slots);
                }
                Err(error) => failure = Some(error),
            }
            self.forget_links(Some(node));
        }
        Err(failure.unwrap_or_else(|| RedisError::from(std::io::Error::other("no servers"))))
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Servers({})", self.place)
    }
}

/// The answer to CLUSTER SLOTS: each is first slot, last slot, primary, replicas; a server is host,
/// port and more. An unknown host is that of the server that was asked.
fn slots_of(answers: &[Value], asked: &Node) -> Slots {
    let Some(Value::Array(ranges)) = answers.first() else { return Slots::new() };
    let range = |range: &Value| {
        let Value::Array(range) = range else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(primary), ..] = &range[..] else {
            return None;
        };
        let [host, Value::Int(port), ..] = &primary[..] else { return None };
        let host = match (host, asked) {
            (Value::BulkString(host), _) if !host.is_empty() && host != b"?" => {
                String::from_utf8(host.clone()).ok()?
            }
            (_, Node::Tcp { host, .. }) => host.clone(),
            (_, Node::Unix(_)) => return None,
        };
        let node = Node::Tcp { host, port: u16::try_from(*port).ok()? };
        Some((u16::try_from(*first).ok()?, u16::try_from(*last).ok()?, node))
    };
    ranges.iter().filter_map(range).collect()
}

fn pause(failures: u32, deadline: Option<Instant>) {
    let pause = SHORTEST_PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    thread::sleep(left.map_or(pause, |left| left.min(pause)));
}

/// Panics cannot leave the maps half changed, so a poisoned lock is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

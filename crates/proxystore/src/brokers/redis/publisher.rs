//! The end that publishes, the same for all kinds but for the command.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::gate::{Gate, Pass};
use super::pipeline::Pipeline;
use super::server::{Attempt, Server};
use super::socket::Waker;
use crate::brokers::{Publisher, check_topic, closed, full};
use crate::error::{Error, ErrorKind, Result};
use crate::fork::PerProcess;

const PUBLISH: &str = "publish a message";
const FLUSH: &str = "flush a publisher";
const CLOSE: &str = "close a publisher";

/// How long closing may take.
const FAREWELL: Duration = Duration::from_secs(3);

/// Servers take no longer string, by default.
const LARGEST: usize = 512 << 20;

/// By which command a message is published to a topic.
pub(super) type Command = for<'a> fn(topic: &'a [u8], message: &'a [u8]) -> Vec<&'a [u8]>;

#[derive(Debug)]
pub(super) struct RedisPublisher {
    server: Arc<Server>,
    command: Command,
    /// Marks a message that is published again, and may have been published before.
    mark: Option<fn(&mut [u8])>,
    closed: AtomicBool,
    /// A forked child has a connection of its own, and nothing under way.
    state: PerProcess<State>,
}

#[derive(Default)]
struct State {
    pipeline: Gate<Pipeline>,
    waker: Arc<Waker>,
}

impl RedisPublisher {
    pub(super) fn new(server: &Arc<Server>, command: Command, mark: Option<fn(&mut [u8])>) -> Self {
        Self {
            server: Arc::clone(server),
            command,
            mark,
            closed: AtomicBool::new(false),
            state: PerProcess::new(State::default),
        }
    }

    fn enter(
        &self,
        operation: &'static str,
        topic: &str,
        deadline: Option<Instant>,
    ) -> Result<(Pass<'_, Pipeline>, Attempt<'_>)> {
        let state = self.state.get();
        let pass = state.pipeline.enter(deadline);
        if self.closed.load(Ordering::Acquire) {
            return Err(closed(operation));
        }
        let Some(mut pass) = pass else {
            return Err(full(topic, "other threads are still publishing"));
        };
        pass.mark = self.mark;
        Ok((pass, Attempt::new(&self.server, operation, deadline, Some(&state.waker))))
    }
}

impl Publisher for RedisPublisher {
    fn publish(&self, topic: &str, message: &[u8], deadline: Option<Instant>) -> Result<()> {
        check_topic(topic)?;
        if message.len() >= LARGEST {
            let cause = "the message is larger than Redis takes";
            return Err(Error::new(ErrorKind::Config, PUBLISH, cause)
                .with("topic", topic)
                .with("bytes", message.len())
                .with_hint("store the object, and publish a reference to it"));
        }
        let (mut pipeline, mut attempt) = self.enter(PUBLISH, topic, deadline)?;
        pipeline.push(&mut attempt, &(self.command)(topic.as_bytes(), message))
    }

    fn flush(&self, deadline: Option<Instant>) -> Result<()> {
        let (mut pipeline, mut attempt) = self.enter(FLUSH, "", deadline)?;
        pipeline.flush(&mut attempt)
    }

    fn close(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let state = self.state.get();
        state.waker.wake();
        let deadline = Some(Instant::now() + FAREWELL);
        let Some(mut pipeline) = state.pipeline.enter(deadline) else { return Ok(()) };
        let mut attempt = Attempt::new(&self.server, CLOSE, deadline, None);
        let outcome = pipeline.flush(&mut attempt);
        *pipeline = Pipeline::default();
        outcome
    }
}

impl Drop for RedisPublisher {
    fn drop(&mut self) {
        let _ = self.close();
    }
}

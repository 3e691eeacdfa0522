//! The end that receives, as far as it is the same for all kinds.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redis::{RedisError, RedisResult};

use super::answer::Answer;
use super::gate::Gate;
use super::link::{Link, packed, too_late};
use super::pipeline::Pipeline;
use super::server::{Attempt, Server};
use super::socket::{Limit, Waker};
use crate::brokers::{
    Delivery, Guarantee, SubscribeOptions, Subscriber, Tag, check_subscription, closed,
};
use crate::error::{Error, Result};
use crate::fork::PerProcess;

const SUBSCRIBE: &str = "subscribe to topics";
const RECEIVE: &str = "receive a message";
const ACKNOWLEDGE: &str = "acknowledge a message";
const CLOSE: &str = "close a subscriber";

/// For how long a new subscriber tries to reach its server.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long closing may take.
const FAREWELL: Duration = Duration::from_secs(3);

/// How much longer than its deadline a look may take that has begun, for the answer to arrive: a
/// message may be in it.
const GRACE: Duration = Duration::from_secs(1);

/// What is subscribed to.
pub(super) struct Subscription {
    pub(super) server: Arc<Server>,
    pub(super) topics: Vec<String>,
    pub(super) options: SubscribeOptions,
}

impl Subscription {
    pub(super) fn prefetch(&self) -> usize {
        self.options.prefetch
    }

    /// The topics in turn, so that none of them starves the others.
    pub(super) fn topics_from(&self, turn: usize) -> impl Iterator<Item = &str> {
        let count = self.topics.len();
        (0..count).map(move |index| &*self.topics[(turn + index) % count])
    }
}

/// What a look for messages has at hand.
pub(super) struct Look<'a, S: Source> {
    pub(super) subscription: &'a Subscription,
    pub(super) aside: &'a Gate<Aside<S>>,
    pub(super) waker: &'a Arc<Waker>,
    /// When it is to be over; `None` for never.
    pub(super) deadline: Option<Instant>,
}

/// Why a look failed.
pub(super) enum Fault {
    /// With this, which may pass.
    Link(RedisError),
    /// With this, which was tried for long enough.
    Final(Error),
}

impl From<RedisError> for Fault {
    fn from(error: RedisError) -> Self {
        Self::Link(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

impl Fault {
    /// Returns when it is to be tried again.
    fn wait(self, attempt: &mut Attempt<'_>) -> Result<()> {
        match self {
            Self::Link(error) => attempt.failed(error),
            Self::Final(error) => Err(error),
        }
    }
}

/// Where messages come from.
pub(super) trait Source: Default + Send + 'static {
    /// What is known of messages while another thread may be waiting for some.
    type Notes: Default + Send + 'static;

    /// What its broker promises.
    const GUARANTEE: Guarantee;

    /// The next of the messages that are here.
    fn pop(&mut self) -> Option<Delivery>;

    /// Looks for messages until there are some or the time is up, or sooner; connects first.
    fn fetch(&mut self, look: &Look<'_, Self>) -> Result<(), Fault>;

    /// Connects, so that it takes part from now on.
    fn connect(&mut self, look: &Look<'_, Self>, limit: Limit<'_>) -> Result<(), Fault>;

    /// Drops a connection that is of no use any more.
    fn disconnect(&mut self);

    /// Says that messages were dealt with.
    fn acknowledge(
        _subscription: &Subscription,
        _aside: &mut Aside<Self>,
        _attempt: &mut Attempt<'_>,
        _tags: &[Tag],
    ) -> Result<()> {
        Ok(())
    }

    /// Gives back what nobody got, after the last look.
    fn give_back(
        &mut self,
        _subscription: &Subscription,
        _aside: &mut Aside<Self>,
        _attempt: &mut Attempt<'_>,
    ) -> Result<()> {
        Ok(())
    }
}

/// What serves while the main connection waits.
#[derive(Default)]
pub(super) struct Aside<S: Source> {
    pub(super) pipeline: Pipeline,
    pub(super) notes: S::Notes,
}

#[derive(Default)]
struct State<S: Source> {
    source: Gate<S>,
    aside: Gate<Aside<S>>,
    waker: Arc<Waker>,
}

pub(super) struct RedisSubscriber<S: Source> {
    subscription: Subscription,
    closed: AtomicBool,
    /// A forked child is a subscriber of its own.
    state: PerProcess<State<S>>,
}

impl<S: Source> RedisSubscriber<S> {
    pub(super) fn new(
        server: &Arc<Server>,
        topics: &[&str],
        options: &SubscribeOptions,
    ) -> Result<Self> {
        let subscription = Subscription {
            server: Arc::clone(server),
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            options: check_subscription(topics, options)?,
        };
        let closed = AtomicBool::new(false);
        let new = Self { subscription, closed, state: PerProcess::new(State::default) };
        let deadline = Some(Instant::now() + PATIENCE);
        let state = new.state.get();
        let mut attempt = Attempt::new(server, SUBSCRIBE, deadline, None);
        if let Some(mut source) = state.source.enter(deadline) {
            while let Err(error) = source.connect(&new.look(deadline), attempt.limit()) {
                source.disconnect();
                error.wait(&mut attempt)?;
            }
        }
        Ok(new)
    }

    fn look(&self, deadline: Option<Instant>) -> Look<'_, S> {
        let State { aside, waker, .. } = self.state.get();
        Look { subscription: &self.subscription, aside, waker, deadline }
    }

    fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(closed(operation)) } else { Ok(()) }
    }

    fn release(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let state = self.state.get();
        state.waker.wake();
        let deadline = Some(Instant::now() + FAREWELL);
        let (source, aside) = (state.source.enter(deadline), state.aside.enter(deadline));
        let (Some(mut source), Some(mut aside)) = (source, aside) else { return Ok(()) };
        let mut attempt = Attempt::new(&self.subscription.server, CLOSE, deadline, None);
        let outcome = source.give_back(&self.subscription, &mut aside, &mut attempt);
        (*source, *aside) = (S::default(), Aside::default());
        outcome
    }
}

impl<S: Source> Subscriber for RedisSubscriber<S> {
    fn receive(&self, deadline: Option<Instant>) -> Result<Option<Delivery>> {
        self.check_open(RECEIVE)?;
        let state = self.state.get();
        let Some(mut source) = state.source.enter(deadline) else {
            return self.check_open(RECEIVE).map(|()| None);
        };
        let server = &self.subscription.server;
        let mut attempt = Attempt::new(server, RECEIVE, deadline, Some(&state.waker));
        let look = self.look(deadline);
        let mut has_looked = false;
        loop {
            self.check_open(RECEIVE)?;
            if let Some(delivery) = source.pop() {
                return Ok(Some(delivery));
            }
            if has_looked && attempt.is_over() {
                return Ok(None);
            }
            match source.fetch(&look) {
                Ok(()) => {
                    attempt.worked();
                    has_looked = true;
                }
                Err(error) => {
                    source.disconnect();
                    error.wait(&mut attempt)?;
                }
            }
        }
    }

    fn acknowledge(&self, tags: &[Tag]) -> Result<()> {
        self.check_open(ACKNOWLEDGE)?;
        let state = self.state.get();
        let Some(mut aside) = state.aside.enter(None) else { return Ok(()) };
        self.check_open(ACKNOWLEDGE)?;
        let server = &self.subscription.server;
        let mut attempt = Attempt::new(server, ACKNOWLEDGE, None, Some(&state.waker));
        S::acknowledge(&self.subscription, &mut aside, &mut attempt, tags)
    }

    fn guarantee(&self) -> Guarantee {
        S::GUARANTEE
    }

    fn group(&self) -> &str {
        &self.subscription.options.group
    }

    fn close(&self) -> Result<()> {
        self.release()
    }
}

impl<S: Source> Drop for RedisSubscriber<S> {
    fn drop(&mut self) {
        let _ = self.release();
    }
}

impl<S: Source> fmt::Debug for RedisSubscriber<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Subscription { server, topics, .. } = &self.subscription;
        write!(f, "RedisSubscriber({topics:?} of {server:?})")
    }
}

impl<S: Source> Look<'_, S> {
    /// Until when an answer has to be here that is not waited for on purpose.
    pub(super) fn until(&self) -> Instant {
        let now = Instant::now();
        let silent = now + self.subscription.server.settings.timeout;
        self.deadline.map_or(silent, |deadline| deadline.max(now + GRACE).min(silent))
    }

    /// The same for what ends when the subscriber is closed.
    pub(super) fn limit(&self) -> Limit<'_> {
        self.limit_at(self.until())
    }

    pub(super) fn limit_at(&self, until: Instant) -> Limit<'_> {
        Limit { until, waker: Some(self.waker) }
    }

    /// Something that is done on the way.
    pub(super) fn attempt(&self) -> Attempt<'_> {
        let deadline = self.deadline.map(|_| self.until());
        Attempt::new(&self.subscription.server, RECEIVE, deadline, Some(self.waker))
    }

    /// How long a server may be asked to wait for messages, in milliseconds and at most so long;
    /// `None` to just look.
    pub(super) fn wait(&self, longest: Duration) -> Option<Duration> {
        let now = Instant::now();
        let left =
            self.deadline.map_or(longest, |deadline| deadline.saturating_duration_since(now));
        let left = left.min(longest);
        (left.as_millis() > 0).then_some(left)
    }

    /// The answer to a command that waits so long on the server.
    ///
    /// Servers may be a tenth of a second late, so at the deadline the wait is ended from aside:
    /// no message is taken that nobody waits for.
    pub(super) fn answer_in(
        &self,
        link: &mut Link,
        command: &[&[u8]],
        wait: Duration,
    ) -> RedisResult<Answer> {
        let server = &self.subscription.server;
        link.send(&packed(command), self.limit_at(Instant::now() + server.settings.timeout))?;
        let silent = Instant::now() + wait + server.settings.timeout;
        let until = self.deadline.map_or(silent, |deadline| deadline.min(silent));
        if let Some(answer) = link.receive(self.limit_at(until))? {
            return Ok(answer);
        }
        let limit = Instant::now() + GRACE;
        if let (Some(id), Some(mut aside)) = (link.id, self.aside.enter(Some(limit))) {
            let mut attempt = Attempt::new(server, CLOSE, Some(limit), None);
            let id = id.to_string();
            // If it cannot be done, the answer is late.
            let _ = aside.pipeline.call(&mut attempt, &[b"CLIENT", b"UNBLOCK", id.as_bytes()]);
        }
        link.receive(Limit::at(limit))?.ok_or_else(too_late)
    }
}

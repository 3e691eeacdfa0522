//! The end that publishes: librdkafka's queue, and what it says of the messages in it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext, PurgeConfig,
};

use super::names::topic_name;
use super::{PATIENCE, SLICE, error, settings, unreachable};
use crate::brokers::{Publisher, check_topic, closed, elsewhere, full};
use crate::error::{Error, ErrorKind, Result};
use crate::fork::Inherited;
use crate::key::unique_id;

/// The largest message; brokers take 1048588 bytes unless they are told otherwise, with its header.
const LARGEST: usize = 1_048_000;
const KEY_ROOM: usize = 200;
/// How long `close` tries to flush, and when no broker can be reached.
const FLUSHES_WITHIN: Duration = Duration::from_secs(5);
const DOWN_FLUSHES_WITHIN: Duration = Duration::from_secs(1);

/// A publisher over Kafka.
#[derive(Debug)]
pub(super) struct KafkaPublisher(Inherited<End>);

struct End {
    producer: BaseProducer<Reports>,
    /// Has all its messages go to one partition of a topic.
    key: String,
    closed: AtomicBool,
}

/// What librdkafka tells.
struct Reports {
    servers: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Of the first message that was not taken.
    failure: Option<Error>,
    /// Why no broker can be reached.
    down: Option<String>,
}

impl Reports {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for Reports {
    fn error(&self, _error: KafkaError, reason: &str) {
        self.with(|state| state.down = Some(reason.to_owned()));
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        self.with(|state| match result {
            Ok(_) => state.down = None,
            Err((cause, message)) => {
                let failure = || {
                    error("publish a message", &self.servers, cause).with("topic", message.topic())
                };
                state.failure.get_or_insert_with(failure);
            }
        });
    }
}

impl KafkaPublisher {
    pub(super) fn new(servers: &str) -> Result<Self> {
        let reports = Reports { servers: servers.to_owned(), state: Mutex::default() };
        let producer = settings(servers)
            .set("enable.idempotence", "true")
            .set("linger.ms", "0")
            .set("message.max.bytes", (LARGEST + KEY_ROOM).to_string())
            .set("queue.buffering.max.messages", "10000")
            .set("queue.buffering.max.kbytes", "65536")
            .set("message.timeout.ms", PATIENCE.as_millis().to_string())
            .create_with_context(reports)
            .map_err(|cause| error("make a publisher", servers, &cause))?;
        let end = End { producer, key: unique_id()?, closed: AtomicBool::new(false) };
        Ok(Self(Inherited::new(end)))
    }
}

impl Publisher for KafkaPublisher {
    fn publish(&self, topic: &str, message: &[u8], deadline: Option<Instant>) -> Result<()> {
        const OPERATION: &str = "publish a message";
        check_topic(topic)?;
        let end = self.0.get().ok_or_else(|| elsewhere(OPERATION))?;
        end.check(OPERATION)?;
        if message.len() > LARGEST {
            let cause = KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge);
            return Err(end.error(OPERATION, &cause).with("topic", topic).with("limit", LARGEST));
        }
        let name = topic_name(topic);
        let mut record = BaseRecord::to(&name).key(&end.key).payload(message);
        loop {
            match end.producer.send(record) {
                Ok(()) => {
                    end.producer.poll(Duration::ZERO);
                    return Ok(());
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), same)) => {
                    record = same;
                }
                Err((cause, _)) => return Err(end.error(OPERATION, &cause).with("topic", topic)),
            }
            let Some(slice) = slice(deadline) else {
                return Err(end.late(OPERATION, || full(topic, "the brokers are behind")));
            };
            end.producer.poll(slice);
            end.check(OPERATION)?;
        }
    }

    fn flush(&self, deadline: Option<Instant>) -> Result<()> {
        const OPERATION: &str = "flush a publisher";
        let end = self.0.get().ok_or_else(|| elsewhere(OPERATION))?;
        loop {
            end.check(OPERATION)?;
            if end.flush_until(deadline)? {
                return end.check(OPERATION);
            }
        }
    }

    fn close(&self) -> Result<()> {
        match self.0.get() {
            Some(end) => end.close(),
            None => Ok(()),
        }
    }
}

impl End {
    /// Fails if it is closed, or a message was not taken.
    fn check(&self, operation: &'static str) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(closed(operation));
        }
        self.producer.context().with(|state| state.failure.take()).map_or(Ok(()), Err)
    }

    /// Flushes for a moment; whether all is with the brokers.
    fn flush_until(&self, deadline: Option<Instant>) -> Result<bool> {
        const OPERATION: &str = "flush a publisher";
        let time = slice(deadline);
        match self.producer.flush(time.unwrap_or_default()) {
            Ok(()) => Ok(true),
            Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)) if time.is_some() => {
                Ok(false)
            }
            Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)) => {
                Err(self.late(OPERATION, || {
                    let cause = "the brokers have not confirmed what was published";
                    Error::new(ErrorKind::Timeout, OPERATION, cause)
                        .with("servers", &self.producer.context().servers)
                        .with_hint("wait longer")
                }))
            }
            Err(cause) => Err(self.error(OPERATION, &cause)),
        }
    }

    fn error(&self, operation: &'static str, cause: &KafkaError) -> Error {
        error(operation, &self.producer.context().servers, cause)
    }

    /// The error of a time that is up.
    fn late(&self, operation: &'static str, otherwise: impl FnOnce() -> Error) -> Error {
        let reports = self.producer.context();
        let down = reports.with(|state| state.down.clone());
        down.map_or_else(otherwise, |cause| unreachable(operation, &reports.servers, &cause))
    }

    fn close(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let is_down = self.producer.context().with(|state| state.down.is_some());
        let time = if is_down { DOWN_FLUSHES_WITHIN } else { FLUSHES_WITHIN };
        let end = Some(Instant::now() + time);
        let mut done = Ok(false);
        while matches!(done, Ok(false)) {
            done = self.flush_until(end);
        }
        if done.is_err() {
            self.producer.purge(PurgeConfig::default().queue().inflight());
        }
        let failure = self.producer.context().with(|state| state.failure.take());
        done.and(failure.map_or(Ok(()), Err))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let _ = self.close(); // who wants to know flushes or closes
    }
}

/// How long to wait before looking again; `None` when the time is up.
fn slice(deadline: Option<Instant>) -> Option<Duration> {
    let Some(deadline) = deadline else { return Some(SLICE) };
    let left = deadline.saturating_duration_since(Instant::now());
    (!left.is_zero()).then(|| left.min(SLICE))
}

//! Streams and consumers of JetStream, by its API: JSON in requests and answers.
//!
//! A stream keeps a message until all its consumers acknowledged it, and forgets at once what comes
//! while it has none. Groups are consumers; so that what is published before the first of them is
//! kept, whoever publishes makes a consumer that nobody asks for messages, and groups remove it.

use std::time::Duration;

use async_nats::Request;
use serde::{Deserialize, Serialize};

use super::link::{Session, lost};
use super::names::Topic;
use crate::error::{Error, ErrorKind, Result};

/// Keeps what comes before there is a group; no group is called so.
const EARLY: &str = "=early";
/// What is published again within this time of the first is the same message.
const SAME_WITHIN: Duration = Duration::from_secs(30);
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

const NO_CONTENT: Vec<u8> = Vec::new();

// Errors of the API that mean something here.
const NO_CONSUMER: u64 = 10014;
const NO_STREAM: u64 = 10059;
const IS_THERE: u64 = 10058;

#[derive(Serialize)]
struct StreamConfig<'a> {
    name: &'a str,
    subjects: [&'a str; 1],
    retention: &'static str,
    storage: &'static str,
    num_replicas: u32,
    duplicate_window: u64,
    description: String,
}

#[derive(Serialize)]
struct NewConsumer<'a> {
    stream_name: &'a str,
    config: ConsumerConfig,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct ConsumerConfig {
    durable_name: String,
    deliver_policy: String,
    ack_policy: String,
    /// In nanoseconds.
    ack_wait: u64,
    max_ack_pending: i64,
}

#[derive(Deserialize)]
pub(super) struct Answer<T> {
    error: Option<Refusal>,
    #[serde(flatten)]
    content: Option<T>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

#[derive(Deserialize)]
struct StreamInfo {
    state: StreamState,
}

#[derive(Deserialize)]
struct StreamState {
    consumer_count: usize,
}

#[derive(Deserialize)]
struct ConsumerInfo {
    config: ConsumerConfig,
}

#[derive(Deserialize)]
pub(super) struct Nothing {}

/// Makes a topic ready to be published to: what comes from now on is kept.
pub(super) async fn open_topic(session: &Session, topic: &Topic) -> Result<()> {
    if consumers(session, topic).await? > 0 {
        return Ok(());
    }
    let early = ConsumerConfig { durable_name: EARLY.to_owned(), ..ConsumerConfig::all() };
    create_consumer(session, topic, early).await?.content()?;
    // A group that came meanwhile did not see it.
    if consumers(session, topic).await? > 1 { remove_early(session, topic).await } else { Ok(()) }
}

/// Makes a group part of a topic's readers: what comes from now on waits for it, and what came
/// before if it is the first.
pub(super) async fn join_group(
    session: &Session,
    topic: &Topic,
    group: &str,
    redeliver_after: Duration,
) -> Result<()> {
    let count = consumers(session, topic).await?;
    let wait = u64::try_from(redeliver_after.as_nanos()).unwrap_or(u64::MAX / 2);
    // Another subscriber of the group may make its consumer between the two requests.
    for _ in 0..3 {
        let found = match info(session, topic, group).await? {
            Some(found) if found.ack_wait == wait => return Ok(()),
            Some(found) => ConsumerConfig { ack_wait: wait, ..found },
            None => {
                let is_first = count == 0 || info(session, topic, EARLY).await?.is_some();
                let base = ConsumerConfig::all();
                let deliver_policy = if is_first { base.deliver_policy } else { "new".to_owned() };
                let durable_name = group.to_owned();
                ConsumerConfig { durable_name, deliver_policy, ack_wait: wait, ..base }
            }
        };
        let answer = create_consumer(session, topic, found).await?;
        if answer.error.is_none() {
            return remove_early(session, topic).await;
        }
        if info(session, topic, group).await?.is_none() {
            answer.content()?;
        }
    }
    Ok(())
}

impl ConsumerConfig {
    fn all() -> Self {
        Self {
            deliver_policy: "all".to_owned(),
            ack_policy: "explicit".to_owned(),
            max_ack_pending: -1, // what is fetched ahead is limited by who fetches
            ..Self::default()
        }
    }
}

/// How many consumers the stream of a topic has; makes the stream if there is none.
async fn consumers(session: &Session, topic: &Topic) -> Result<usize> {
    let name = &topic.stream;
    let about = format!("STREAM.INFO.{name}");
    let mut answer: Answer<StreamInfo> = call(session, &about, NO_CONTENT).await?;
    if answer.is(NO_STREAM) {
        let config = StreamConfig {
            name,
            subjects: [&topic.subject],
            retention: "interest",
            storage: "file",
            num_replicas: 1,
            duplicate_window: u64::try_from(SAME_WITHIN.as_nanos()).unwrap_or(u64::MAX),
            description: format!("topic {}", topic.name),
        };
        answer = call(session, &format!("STREAM.CREATE.{name}"), json(&config)?).await?;
        if answer.is(IS_THERE) {
            answer = call(session, &about, NO_CONTENT).await?;
        }
    }
    Ok(answer.content()?.state.consumer_count)
}

async fn info(session: &Session, topic: &Topic, consumer: &str) -> Result<Option<ConsumerConfig>> {
    let about = format!("CONSUMER.INFO.{}.{consumer}", topic.stream);
    let answer: Answer<ConsumerInfo> = call(session, &about, NO_CONTENT).await?;
    if answer.is(NO_CONSUMER) {
        return Ok(None);
    }
    Ok(Some(answer.content()?.config))
}

async fn create_consumer(
    session: &Session,
    topic: &Topic,
    config: ConsumerConfig,
) -> Result<Answer<Nothing>> {
    let subject = format!("CONSUMER.DURABLE.CREATE.{}.{}", topic.stream, config.durable_name);
    let content = json(&NewConsumer { stream_name: &topic.stream, config })?;
    call(session, &subject, content).await
}

async fn remove_early(session: &Session, topic: &Topic) -> Result<()> {
    let subject = format!("CONSUMER.DELETE.{}.{EARLY}", topic.stream);
    let answer: Answer<Nothing> = call(session, &subject, NO_CONTENT).await?;
    if !answer.is(NO_CONSUMER) {
        answer.content()?;
    }
    Ok(())
}

async fn call<T: serde::de::DeserializeOwned>(
    session: &Session,
    subject: &str,
    content: Vec<u8>,
) -> Result<Answer<T>> {
    let request = Request::new().payload(content.into()).timeout(Some(ANSWERS_WITHIN));
    let subject = format!("$JS.API.{subject}");
    let answer = session.client.send_request(subject, request).await;
    parse(&answer.map_err(|error| lost(&session.servers, error))?.payload)
}

fn json(content: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(content).map_err(|error| odd(&error))
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(answer: &[u8]) -> Result<Answer<T>> {
    serde_json::from_slice(answer).map_err(|error| odd(&error))
}

fn odd(error: &serde_json::Error) -> Error {
    let message = format!("the server's answer is not one of JetStream: {error}");
    Error::new(ErrorKind::Incompatible, "use a NATS server", message)
        .with_hint("nats-server 2.9 or newer is needed")
}

impl<T> Answer<T> {
    fn is(&self, code: u64) -> bool {
        self.error.as_ref().is_some_and(|error| error.err_code == code)
    }

    /// What it says, unless that is a refusal.
    pub(super) fn content(self) -> Result<T> {
        let refused = |kind, code, message: String| {
            Error::new(kind, "use a NATS server", message).with("code", code)
        };
        match self {
            Self { error: None, content: Some(content) } => Ok(content),
            Self { error: None, content: None } => {
                Err(refused(ErrorKind::Incompatible, 0, "its answer lacks what it is about".into()))
            }
            Self { error: Some(Refusal { err_code, description }), .. } => Err(match err_code {
                10002 | 10023 | 10028 | 10047 | 10072 | 10077 | 10122 => {
                    refused(ErrorKind::Full, err_code, format!("it has no room: {description}"))
                        .with_hint("give it more storage, or add subscribers")
                }
                10054 => refused(ErrorKind::Config, err_code, "the message is too large".into())
                    .with_hint("store objects of this size in the store, or let streams take them"),
                10039 | 10076 => refused(ErrorKind::Config, err_code, description)
                    .with_hint("start nats-server with -js, and allow it to the account"),
                // What an operator or another server of the cluster changes may pass.
                10008 | NO_STREAM | NO_CONSUMER => refused(ErrorKind::Io, err_code, description),
                _ => refused(ErrorKind::Config, err_code, description),
            }),
        }
    }
}

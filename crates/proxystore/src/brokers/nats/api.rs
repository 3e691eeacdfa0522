//! Streams and consumers of JetStream, by its API: JSON in requests and answers.
//!
//! Streams keep what comes (retention `limits`); groups are consumers, and their subscribers remove
//! what all of them have acknowledged. With the retention `interest` the server would do that itself,
//! but it drops what comes while there is no consumer, and confirms it: when it is stopped, it ends
//! the consumers before the stream (seen with 2.9.10).

use std::time::Duration;

use async_nats::Request;
use serde::{Deserialize, Serialize};

use super::link::{Session, lost};
use super::names::Topic;
use crate::error::{Error, ErrorKind, Result};

/// What is published again within this time of the first is the same message.
const SAME_WITHIN: Duration = Duration::from_secs(30);
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

const NO_CONTENT: Vec<u8> = Vec::new();

// Errors of the API that mean something here.
const NO_CONSUMER: u64 = 10014;
const NO_STREAM: u64 = 10059;

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
    config: StreamPurpose,
    state: StreamState,
}

#[derive(Deserialize)]
struct StreamPurpose {
    #[serde(default)]
    description: String,
}

#[derive(Deserialize)]
struct StreamState {
    consumer_count: usize,
    first_seq: u64,
}

#[derive(Deserialize)]
struct ConsumerInfo {
    config: ConsumerConfig,
    delivered: Place,
    ack_floor: Place,
}

#[derive(Deserialize)]
struct Place {
    stream_seq: u64,
}

#[derive(Deserialize)]
struct ConsumerList {
    total: usize,
    #[serde(default)]
    consumers: Option<Vec<ConsumerInfo>>,
}

#[derive(Deserialize)]
pub(super) struct Nothing {}

/// Makes a topic ready to be published to: what comes from now on is kept.
pub(super) async fn open_topic(session: &Session, topic: &Topic) -> Result<()> {
    stream(session, topic).await.map(drop)
}

/// Makes a group part of a topic's readers: what comes from now on waits for it, and what came
/// before if it is the first.
pub(super) async fn join_group(
    session: &Session,
    topic: &Topic,
    group: &str,
    redeliver_after: Duration,
) -> Result<()> {
    let is_first = stream(session, topic).await?.state.consumer_count == 0;
    let wait = u64::try_from(redeliver_after.as_nanos()).unwrap_or(u64::MAX / 2);
    // Another subscriber of the group may make its consumer between the two requests.
    for _ in 0..3 {
        let found = match info(session, topic, group).await? {
            Some(found) if found.ack_wait == wait => return Ok(()),
            Some(found) => ConsumerConfig { ack_wait: wait, ..found },
            None => {
                let base = ConsumerConfig::all();
                let deliver_policy = if is_first { base.deliver_policy } else { "new".to_owned() };
                let durable_name = group.to_owned();
                ConsumerConfig { durable_name, deliver_policy, ack_wait: wait, ..base }
            }
        };
        let answer = create_consumer(session, topic, found).await?;
        if answer.error.is_none() {
            return Ok(());
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

/// Removes what all groups of a topic have acknowledged, from a stream that was made here.
pub(super) async fn sweep(session: &Session, topic: &Topic) -> Result<()> {
    let StreamInfo { config, state } = stream(session, topic).await?;
    if config.description != description(topic) {
        return Ok(());
    }
    let name = &topic.stream;
    let (mut listed, mut dealt_with) = (0, u64::MAX);
    loop {
        let page = json(&serde_json::json!({ "offset": listed }))?;
        let answer: Answer<ConsumerList> =
            call(session, &format!("CONSUMER.LIST.{name}"), page).await?;
        let ConsumerList { total, consumers } = answer.content()?;
        let consumers = consumers.unwrap_or_default();
        let ends = consumers.iter().map(|c| c.ack_floor.stream_seq.min(c.delivered.stream_seq));
        dealt_with = ends.fold(dealt_with, u64::min);
        listed += consumers.len();
        if listed >= total {
            break;
        }
        if consumers.is_empty() {
            return Ok(()); // some were removed meanwhile; the next sweep sees the others
        }
    }
    if listed == 0 {
        return Ok(());
    }
    // One by one: a purge also makes consumers forget what they are to deliver again (2.9.10). Who
    // asks without a subject for the answer gets none, which is as well.
    for number in state.first_seq..=dealt_with {
        let subject = format!("$JS.API.STREAM.MSG.DELETE.{name}");
        let what = json(&serde_json::json!({ "seq": number, "no_erase": true }))?;
        let done = session.client.publish(subject, what.into()).await;
        done.map_err(|error| lost(&session.servers, error))?;
    }
    Ok(())
}

/// By which a stream is known that was made here.
fn description(topic: &Topic) -> String {
    format!("topic {}", topic.name)
}

/// The stream of a topic, made if there is none.
async fn stream(session: &Session, topic: &Topic) -> Result<StreamInfo> {
    let name = &topic.stream;
    let about = format!("STREAM.INFO.{name}");
    let mut answer: Answer<StreamInfo> = call(session, &about, NO_CONTENT).await?;
    if answer.is(NO_STREAM) {
        let config = StreamConfig {
            name,
            subjects: [&topic.subject],
            retention: "limits",
            storage: "file",
            num_replicas: 1,
            duplicate_window: u64::try_from(SAME_WITHIN.as_nanos()).unwrap_or(u64::MAX),
            description: description(topic),
        };
        answer = call(session, &format!("STREAM.CREATE.{name}"), json(&config)?).await?;
        if answer.error.is_some() {
            // Another may be making it, which servers refuse in several ways: that it is there, or
            // that its subject is taken.
            let again = call(session, &about, NO_CONTENT).await?;
            answer = if again.is(NO_STREAM) { answer } else { again };
        }
    }
    answer.content()
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

//! One pull: asks the server for messages of a topic and puts them in the basket.

use std::sync::Arc;
use std::time::Duration;

use async_nats::StatusCode;
use futures_util::StreamExt;
use tokio::time::timeout;

use super::link::{Session, lost};
use super::subscriber::Basket;
use crate::error::Result;

/// How long the server waits for a message before it says that there is none.
const WAITS: Duration = Duration::from_secs(5);
/// How much it sends at once, or one message: it cuts connections with 64 MB on their way.
const MOST_BYTES: usize = 16 << 20;
/// How much later its answer may come.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// Where answers to pulls arrive.
pub(super) struct Inbox {
    pub(super) session: u64,
    name: String,
    answers: async_nats::Subscriber,
}

pub(super) struct Pull {
    pub(super) session: Arc<Session>,
    pub(super) basket: Arc<Basket>,
    /// The topic's.
    pub(super) index: usize,
    /// Stream and consumer, as in subjects.
    pub(super) group: String,
    /// How many to take of what is there.
    pub(super) looks: Option<usize>,
    /// Waits for one if there is none.
    pub(super) waits: bool,
}

/// What an answer brought.
#[derive(PartialEq, Eq)]
enum Taken {
    Some,
    Nothing,
    /// Nothing, as the first message alone is more than was asked for.
    TooLarge,
}

impl Pull {
    pub(super) async fn run(self) {
        let pulled = self.pull().await;
        self.basket.ended(self.index, pulled);
    }

    async fn pull(&self) -> Result<Inbox> {
        let old = self.basket.inbox(self.index).filter(|inbox| inbox.session == self.session.id);
        let mut inbox = match old {
            Some(inbox) => inbox,
            None => self.inbox().await?,
        };
        if let Some(count) = self.looks {
            let request = format!(r#"{{"batch":{count},"max_bytes":{MOST_BYTES},"no_wait":true}}"#);
            let mut taken = self.ask(&mut inbox, request, count, ANSWERS_WITHIN).await?;
            if taken == Taken::TooLarge {
                let request = r#"{"batch":1,"no_wait":true}"#.to_owned();
                taken = self.ask(&mut inbox, request, 1, ANSWERS_WITHIN).await?;
            }
            if taken == Taken::Some {
                return Ok(inbox);
            }
            self.basket.looked(self.index);
        }
        if self.waits {
            let request = format!(r#"{{"batch":1,"expires":{}}}"#, WAITS.as_nanos());
            self.ask(&mut inbox, request, 1, WAITS + ANSWERS_WITHIN).await?;
        }
        Ok(inbox)
    }

    async fn inbox(&self) -> Result<Inbox> {
        let Session { client, id, servers, .. } = &*self.session;
        let name = client.new_inbox();
        let answers = client.subscribe(name.clone()).await;
        let answers = answers.map_err(|error| lost(servers, error))?;
        Ok(Inbox { session: *id, name, answers })
    }

    /// Asks, and takes what comes until the server says that this is all.
    async fn ask(
        &self,
        inbox: &mut Inbox,
        request: String,
        count: usize,
        time: Duration,
    ) -> Result<Taken> {
        let Session { client, servers, .. } = &*self.session;
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}", self.group);
        let asked = client.publish_with_reply(subject, inbox.name.clone(), request.into()).await;
        asked.map_err(|error| lost(servers, error))?;
        let mut taken = 0;
        while taken < count {
            let Ok(answer) = timeout(time, inbox.answers.next()).await else {
                return Err(lost(servers, "the server does not answer"));
            };
            let Some(message) = answer else {
                return Err(lost(servers, "the connection broke"));
            };
            match message.status.unwrap_or(StatusCode::OK) {
                StatusCode::OK => {
                    self.basket.put(&self.session, message).await;
                    taken += 1;
                }
                StatusCode::NOT_FOUND | StatusCode::TIMEOUT => break,
                StatusCode::IDLE_HEARTBEAT => {}
                status => {
                    let text = message.description.unwrap_or_default();
                    if status == StatusCode::REQUEST_TERMINATED && text.contains("MaxBytes") {
                        return Ok(if taken > 0 { Taken::Some } else { Taken::TooLarge });
                    }
                    return Err(lost(servers, format!("it gives no messages: {status} {text}")));
                }
            }
        }
        Ok(if taken > 0 { Taken::Some } else { Taken::Nothing })
    }
}

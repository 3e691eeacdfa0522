//! Messages in streams with groups of consumers: `stream+redis://HOST:PORT/DATABASE`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answer::Answer;
use super::link::Link;
use super::publisher::RedisPublisher;
use super::scripts::{RELEASE, SWEEP, TRIM};
use super::server::{Attempt, Server};
use super::socket::Limit;
use super::subscriber::{Aside, Fault, Look, RedisSubscriber, Source, Subscription};
use crate::brokers::{
    Broker, Delivery, Guarantee, Publisher, Sharing, SubscribeOptions, Subscriber, Tag, Traits,
};
use crate::connectors::ConnectorConfig;
use crate::error::Result;
use crate::key::unique_id;

/// The field of an entry that is the message.
const FIELD: &[u8] = b"m";

/// The field of one that was sent again when the connection broke: it may be there twice.
const REPEATED: &[u8] = b"r";

/// Who has what closed subscribers gave back, until it is claimed.
const RETURNED: &[u8] = b"returned";

/// At least so often, a subscriber looks for what others did not acknowledge in time.
const CLAIM_EVERY: Duration = Duration::from_secs(1);

/// At most and at least so often, it looks for consumers that are gone.
const SWEEP_EVERY: [Duration; 2] = [Duration::from_secs(1), Duration::from_mins(1)];

/// After so many acknowledgements, what they make superfluous is removed.
const TRIM_AFTER: usize = 64;

/// A broker that keeps the messages of a topic in a stream, until every group has acknowledged them.
///
/// ```no_run
/// use proxystore::brokers::redis::StreamBroker;
/// use proxystore::brokers::{Broker, SubscribeOptions};
///
/// let broker = StreamBroker::open("stream+redis://localhost:6379/0")?;
/// broker.publisher()?.publish("greetings", b"hello", None)?;
/// let subscriber = broker.subscriber(&["greetings"], &SubscribeOptions::default())?;
/// let delivery = subscriber.receive(None)?.expect("no time to be up");
/// assert_eq!(delivery.message, b"hello");
/// subscriber.acknowledge(&[delivery.tag])?;
/// # Ok::<(), proxystore::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct StreamBroker {
    server: Arc<Server>,
}

impl StreamBroker {
    /// The broker of a URL `stream+redis://HOST:PORT/DATABASE`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for another URL.
    pub fn open(url: &str) -> Result<Self> {
        Self::open_with(&ConnectorConfig::new(url))
    }

    /// The same with options: those of [`ListBroker::open_with`](super::ListBroker::open_with).
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for another URL or option.
    pub fn open_with(config: &ConnectorConfig) -> Result<Self> {
        Ok(Self { server: Arc::new(Server::open("stream", config)?) })
    }
}

impl Broker for StreamBroker {
    fn traits(&self) -> Traits {
        Traits { guarantee: Streams::GUARANTEE, sharing: Sharing::Groups, cross_process: true }
    }

    fn publisher(&self) -> Result<Box<dyn Publisher>> {
        Ok(Box::new(RedisPublisher::new(
            &self.server,
            |topic, message| vec![b"XADD", topic, b"*", FIELD, message],
            Some(mark_repeated),
        )))
    }

    fn subscriber(
        &self,
        topics: &[&str],
        options: &SubscribeOptions,
    ) -> Result<Box<dyn Subscriber>> {
        Ok(Box::new(RedisSubscriber::<Streams>::new(&self.server, topics, options)?))
    }
}

/// An entry of a stream: which of the topics, and the id.
type Entry = (u16, Vec<u8>);

#[derive(Debug)]
struct Ready {
    entry: Entry,
    message: Vec<u8>,
    attempts: u32,
    /// From then on, it is somebody else's: the server's clock runs since it was fetched.
    until: Instant,
}

#[derive(Debug, Default)]
struct Streams {
    link: Option<Link>,
    /// What the groups know this subscriber by; empty until it has connected.
    consumer: Vec<u8>,
    ready: VecDeque<Ready>,
    /// When it looked for what others had.
    claimed: Option<Instant>,
    swept: Option<Instant>,
}

#[derive(Debug, Default)]
struct Notes {
    /// What arrived here and was not acknowledged, and when it is somebody else's.
    open: HashMap<Entry, Instant>,
    /// What was acknowledged and may still be in the streams.
    done: HashMap<u16, Vec<Vec<u8>>>,
}

impl Source for Streams {
    type Notes = Notes;

    const GUARANTEE: Guarantee = Guarantee::AtLeastOnce;

    fn pop(&mut self) -> Option<Delivery> {
        let now = Instant::now();
        while self.ready.pop_front_if(|ready| ready.until <= now).is_some() {}
        let Ready { entry: (topic, id), message, attempts, .. } = self.ready.pop_front()?;
        let tag = Tag([&topic.to_le_bytes()[..], &id].concat());
        Some(Delivery { message, tag, attempts })
    }

    fn connect(&mut self, look: &Look<'_, Self>, limit: Limit<'_>) -> Result<(), Fault> {
        if self.link.is_some() {
            return Ok(());
        }
        let Subscription { server, topics, options, .. } = look.subscription;
        let mut link = Link::open(server, limit)?;
        let group = options.group.as_bytes();
        for topic in topics {
            let create: &[&[u8]] =
                &[b"XGROUP", b"CREATE", topic.as_bytes(), group, b"0", b"MKSTREAM"];
            let Answer::Failure(error) = link.call(create, limit)? else { continue };
            let is_there = match error.code() {
                Some("BUSYGROUP") => true,
                // A full server looks no further, and has to be drained.
                Some("OOM") => {
                    link.call(&[b"XPENDING", topic.as_bytes(), group], limit)?.ok().is_ok()
                }
                _ => false,
            };
            if !is_there {
                return Err(error.into());
            }
        }
        self.link = Some(link);
        if self.consumer.is_empty() {
            self.consumer = unique_id()?.into_bytes();
        } else {
            // An answer may have been lost with the last connection.
            let consumer = self.consumer.clone();
            self.claim(look, Duration::ZERO, Some(&consumer))?;
        }
        Ok(())
    }

    fn disconnect(&mut self) {
        self.link = None;
    }

    fn fetch(&mut self, look: &Look<'_, Self>) -> Result<(), Fault> {
        self.connect(look, look.limit())?;
        let Subscription { topics, options, .. } = look.subscription;
        let every = (options.redeliver_after / 2).clamp(Duration::from_millis(10), CLAIM_EVERY);
        let now = Instant::now();
        if self.claimed.is_none_or(|last| last + every <= now) {
            self.claimed = Some(now);
            self.claim(look, options.redeliver_after, None)?;
            self.tidy(look)?;
        }
        if !self.ready.is_empty() {
            self.claimed = None; // there may be more
            return Ok(());
        }
        let next = self.claimed.map_or(every, |last| every.saturating_sub(last.elapsed()));
        let wait = look.wait(next.max(Duration::from_millis(1)));
        let count = look.subscription.prefetch().to_string();
        let block = milliseconds(wait.unwrap_or_default());
        let mut command: Vec<&[u8]> = vec![b"XREADGROUP", b"GROUP", options.group.as_bytes()];
        command.extend([&self.consumer[..], b"COUNT", count.as_bytes()]);
        if wait.is_some() {
            command.extend([&b"BLOCK"[..], block.as_bytes()]);
        }
        command.push(b"STREAMS");
        command.extend(topics.iter().map(String::as_bytes));
        command.extend(topics.iter().map(|_| &b">"[..]));
        let Some(link) = &mut self.link else { return Ok(()) };
        let answer = match wait {
            Some(wait) => look.answer_in(link, &command, wait)?,
            None => link.call(&command, look.limit())?,
        };
        let until = Instant::now() + options.redeliver_after;
        for stream in answer.ok()?.list() {
            let mut parts = stream.list().into_iter();
            let name = parts.next().and_then(Answer::bytes).unwrap_or_default();
            let Some(topic) = topics.iter().position(|topic| topic.as_bytes() == name) else {
                continue;
            };
            for found in parts.next().map(Answer::list).unwrap_or_default() {
                if let Some((id, message, is_repeated)) = message_of(found) {
                    let (entry, attempts) = ((topic as u16, id), 1 + u32::from(is_repeated));
                    self.ready.push_back(Ready { entry, message, attempts, until });
                }
            }
        }
        if let Some(mut aside) = look.aside.enter(Some(look.until())) {
            let entries = self.ready.iter().map(|ready| (ready.entry.clone(), ready.until));
            aside.notes.open.extend(entries);
        }
        Ok(())
    }

    fn acknowledge(
        subscription: &Subscription,
        aside: &mut Aside<Self>,
        attempt: &mut Attempt<'_>,
        tags: &[Tag],
    ) -> Result<()> {
        let mut by_topic: HashMap<u16, Vec<&[u8]>> = HashMap::new();
        for Tag(tag) in tags {
            if let Some((topic, id)) = tag.split_first_chunk() {
                by_topic.entry(u16::from_le_bytes(*topic)).or_default().push(id);
            }
        }
        for (topic, ids) in by_topic {
            let Some(name) = subscription.topics.get(usize::from(topic)) else { continue };
            let group = subscription.options.group.as_bytes();
            let command: &[&[u8]] = &[b"XACK", name.as_bytes(), group];
            aside.pipeline.push(attempt, &[command, &ids].concat())?;
            let ids = ids.into_iter().map(<[u8]>::to_vec);
            let done = aside.notes.done.entry(topic).or_default();
            for id in ids {
                let entry = (topic, id);
                aside.notes.open.remove(&entry);
                done.push(entry.1);
            }
            if done.len() >= TRIM_AFTER {
                trim(subscription, aside, attempt)?;
            }
        }
        Ok(())
    }

    fn give_back(
        &mut self,
        subscription: &Subscription,
        aside: &mut Aside<Self>,
        attempt: &mut Attempt<'_>,
    ) -> Result<()> {
        if self.consumer.is_empty() {
            return Ok(()); // it never took part
        }
        trim(subscription, aside, attempt)?;
        let group = subscription.options.group.as_bytes();
        for topic in &subscription.topics {
            let topic = topic.as_bytes();
            let command: [&[u8]; 7] =
                [b"EVAL", RELEASE, b"1", topic, group, &self.consumer, RETURNED];
            aside.pipeline.push(attempt, &command)?;
        }
        aside.pipeline.flush(attempt)
    }
}

impl Streams {
    /// Takes over what was not acknowledged for so long; of one consumer, what never arrived here.
    fn claim(
        &mut self,
        look: &Look<'_, Self>,
        idle: Duration,
        of: Option<&[u8]>,
    ) -> Result<(), Fault> {
        let Subscription { topics, options, .. } = look.subscription;
        let Some(mut aside) = look.aside.enter(Some(look.until())) else { return Ok(()) };
        // Or what was acknowledged just now could be claimed.
        aside.pipeline.flush(&mut look.attempt())?;
        let Some(link) = &mut self.link else { return Ok(()) };
        let group = options.group.as_bytes();
        let idle = milliseconds(idle);
        let most = if of.is_some() { usize::MAX >> 1 } else { look.subscription.prefetch() };
        for (index, topic) in topics.iter().enumerate() {
            let (topic, count) = (topic.as_bytes(), most.to_string());
            let mut pending: Vec<&[u8]> = vec![b"XPENDING", topic, group, b"IDLE"];
            pending.extend([idle.as_bytes(), b"-", b"+", count.as_bytes()]);
            pending.extend(of);
            let mut ids = Vec::new(); // in the order of the stream
            let mut attempts: HashMap<Vec<u8>, u32> = HashMap::new();
            for found in link.call(&pending, look.limit())?.ok()?.list() {
                // Id, consumer, how long ago, how often.
                let mut parts = found.list().into_iter();
                let (id, times) = (parts.next().and_then(Answer::bytes), parts.nth(2));
                if let (Some(id), Some(Answer::Int(times))) = (id, times) {
                    ids.push(id.clone());
                    attempts.insert(id, u32::try_from(times).unwrap_or(u32::MAX));
                }
            }
            let entry_of = |id: &Vec<u8>| (index as u16, id.clone());
            ids.retain(|id| match of {
                Some(_) => !aside.notes.open.contains_key(&entry_of(id)),
                None => !self.ready.iter().any(|ready| ready.entry == entry_of(id)),
            });
            if ids.is_empty() {
                continue;
            }
            let ids: Vec<_> = ids.iter().map(Vec::as_slice).collect();
            let claim: [&[u8]; 5] = [b"XCLAIM", topic, group, &self.consumer, idle.as_bytes()];
            let answer = link.call(&[&claim, &*ids].concat(), look.limit())?.ok()?;
            let until = Instant::now() + options.redeliver_after;
            for (id, message, _) in answer.list().into_iter().filter_map(message_of) {
                let attempts = attempts.get(&id).map_or(2, |times| times.saturating_add(1));
                aside.notes.open.insert(entry_of(&id), until);
                let entry = (index as u16, id);
                self.ready.push_back(Ready { entry, message, attempts, until });
            }
        }
        Ok(())
    }

    /// Removes what nobody needs any more, now and then.
    fn tidy(&mut self, look: &Look<'_, Self>) -> Result<(), Fault> {
        let Subscription { topics, options, .. } = look.subscription;
        let Some(mut aside) = look.aside.enter(Some(look.until())) else { return Ok(()) };
        let mut attempt = look.attempt();
        trim(look.subscription, &mut aside, &mut attempt)?;
        let now = Instant::now();
        aside.notes.open.retain(|_, until| *until > now);
        let silent = options.redeliver_after;
        let every = silent.clamp(SWEEP_EVERY[0], SWEEP_EVERY[1]);
        if self.swept.is_none_or(|last| last + every <= now) {
            self.swept = Some(now);
            let silent = milliseconds(silent);
            for topic in topics {
                let (topic, group) = (topic.as_bytes(), options.group.as_bytes());
                let command: [&[u8]; 6] = [b"EVAL", SWEEP, b"1", topic, group, silent.as_bytes()];
                aside.pipeline.push(&mut attempt, &command)?;
            }
        }
        Ok(())
    }
}

/// Has the server remove what was acknowledged by now.
fn trim(
    subscription: &Subscription,
    aside: &mut Aside<Streams>,
    attempt: &mut Attempt<'_>,
) -> Result<()> {
    for (topic, ids) in std::mem::take(&mut aside.notes.done) {
        let Some(topic) = subscription.topics.get(usize::from(topic)) else { continue };
        for ids in ids.chunks(1000) {
            let group = subscription.options.group.as_bytes();
            let command: [&[u8]; 5] = [b"EVAL", TRIM, b"1", topic.as_bytes(), group];
            let ids: Vec<_> = ids.iter().map(Vec::as_slice).collect();
            aside.pipeline.push(attempt, &[&command, &*ids].concat())?;
        }
    }
    Ok(())
}

/// A time as Redis takes it.
fn milliseconds(time: Duration) -> String {
    time.as_millis().min(1 << 52).to_string()
}

/// An entry as it is told: its id, and fields with their values. Entries of other programs may have
/// other fields: the first is the message.
fn message_of(entry: Answer) -> Option<(Vec<u8>, Vec<u8>, bool)> {
    let mut parts = entry.list().into_iter();
    let id = parts.next()?.bytes()?;
    let mut fields = parts.next()?.list().into_iter().filter_map(Answer::bytes);
    let mut first = None;
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        if name == FIELD || name == REPEATED {
            return Some((id, value, name == REPEATED));
        }
        first = first.or(Some(value));
    }
    Some((id, first?, false))
}

/// Gives the message of a packed `XADD` the field of one that was sent again.
fn mark_repeated(command: &mut [u8]) {
    let mut at = 0;
    // The line of the whole, then two lines each of the command, the key and the id, and the field's length.
    for _ in 0..8 {
        let Some(end) = command[at..].windows(2).position(|pair| pair == b"\r\n") else { return };
        at += end + 2;
    }
    if command[at..].starts_with(FIELD) {
        command[at..at + REPEATED.len()].copy_from_slice(REPEATED);
    }
}

#[cfg(test)]
mod tests {
    use super::super::link::packed;
    use super::*;

    #[test]
    fn what_is_sent_again_says_so() {
        for topic in ["t", "a topic $1 m", "ä"] {
            let command =
                |field| packed(&[b"XADD", topic.as_bytes(), b"*", field, b"m\r\n$1\r\nm"]);
            let mut repeated = command(FIELD);
            mark_repeated(&mut repeated);
            assert_eq!(repeated, command(REPEATED));
            mark_repeated(&mut repeated);
            assert_eq!(repeated, command(REPEATED));
        }
    }
}

//! The end that receives: it connects, again and again where need be, and keeps what arrives.

use std::collections::VecDeque;
use std::io::{BufReader, Error, ErrorKind as Io, Result, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::wire::{self, Role, Wish};
use super::{Address, CAPACITY, CAPACITY_BYTES, LARGEST};
use crate::condition::Condition;

/// How long it waits before it tries to connect again.
const PAUSE: Duration = Duration::from_millis(50);

/// How long it tries.
const PATIENCE: Duration = Duration::from_secs(5);

/// What arrived, and whoever waits for it.
#[derive(Debug)]
pub(super) struct Inbox {
    topics: Vec<String>,
    state: Mutex<State>,
    changed: Condition,
}

#[derive(Debug, Default)]
struct State {
    is_closed: bool,
    /// The connection, to be cut when this is closed.
    stream: Option<Arc<TcpStream>>,
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Inbox {
    /// Begins to listen to some topics.
    pub(super) fn open(address: &Address, topics: &[String]) -> Result<Arc<Self>> {
        let (state, changed) = (Mutex::default(), Condition::default());
        let inbox = Arc::new(Self { topics: topics.to_vec(), state, changed });
        let (filled, address) = (Arc::clone(&inbox), address.clone());
        let listen = move || filled.listen(&address);
        thread::Builder::new().name("zmq-subscribe".to_owned()).spawn(listen)?;
        Ok(inbox)
    }

    /// The next message; `None` when the time is up, or this is closed.
    pub(super) fn next(&self, until: Option<Instant>) -> Option<Vec<u8>> {
        let mut state = self.lock();
        loop {
            if state.is_closed {
                return None;
            }
            if let Some(message) = state.messages.pop_front() {
                state.bytes -= message.len();
                drop(state);
                self.changed.notify_all();
                return Some(message);
            }
            if until.is_some_and(|until| until <= Instant::now()) {
                return None;
            }
            state = self.changed.wait(state, until);
        }
    }

    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        if let Some(stream) = state.stream.take() {
            let _ = stream.shutdown(Shutdown::Both); // ends its reading
        }
        drop(state);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(&self, address: &Address) {
        loop {
            let _ = self.connect(address); // publishers come and go
            let mut state = self.lock();
            state.stream = None;
            let pause = Instant::now() + PAUSE;
            while !state.is_closed && Instant::now() < pause {
                state = self.changed.wait(state, Some(pause));
            }
            if state.is_closed {
                return;
            }
        }
    }

    fn connect(&self, address: &Address) -> Result<()> {
        let mut last = Error::from(Io::AddrNotAvailable);
        for found in (address.host(), address.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&found, PATIENCE) {
                Ok(stream) => return self.read(&Arc::new(stream)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn read(&self, stream: &Arc<TcpStream>) -> Result<()> {
        {
            let mut state = self.lock();
            if state.is_closed {
                return Ok(());
            }
            state.stream = Some(Arc::clone(stream));
        }
        super::prepare(stream)?;
        let mut reader = BufReader::with_capacity(64 << 10, &**stream);
        wire::shake_hands(Role::Subscriber, &mut reader, &mut &**stream)?;
        stream.set_read_timeout(None)?;
        for topic in &self.topics {
            (&**stream).write_all(&wire::subscription(topic))?;
        }
        let mut frames = Vec::new();
        loop {
            let frame = wire::read_frame(&mut reader, LARGEST as u64)?;
            if frame.is_command {
                if let Wish::Answer(answer) = wire::wish(&frame) {
                    (&**stream).write_all(&answer)?;
                }
                continue;
            }
            let is_last = !frame.more;
            // What has more frames than ours is for somebody else.
            if frames.len() < 3 {
                frames.push(frame.body);
            }
            if is_last
                && let [topic, message] = &mut frames[..]
                && self.topics.iter().any(|wanted| wanted.is_empty() || wanted.as_bytes() == topic)
            {
                self.put(std::mem::take(message));
            }
            if is_last {
                frames.clear();
            }
        }
    }

    /// Keeps a message, as soon as there is room.
    fn put(&self, message: Vec<u8>) {
        let mut state = self.lock();
        while !state.is_closed
            && (state.messages.len() >= CAPACITY || state.bytes >= CAPACITY_BYTES)
        {
            state = self.changed.wait(state, None);
        }
        state.bytes += message.len();
        state.messages.push_back(message);
        drop(state);
        self.changed.notify_all();
    }
}

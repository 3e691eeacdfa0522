//! The end that publishes: it has the port, and a queue for everyone who is connected.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{BufRead, BufReader, ErrorKind as Io, Read, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::Shutdown;

use super::wire::{self, Role, Wish};
use super::{Address, CAPACITY, CAPACITY_BYTES, MOST_WANTED, SILENCE};
use crate::brokers::LONGEST_TOPIC;
use crate::condition::Condition;
use crate::fork::PerProcess;

/// How long a port is tried to get that somebody else still has.
const PATIENCE: Duration = Duration::from_millis(500);

/// How many may be connected; others are, when there is room.
const MOST_CONNECTED: usize = 1024;

/// How long one that connects may take until it is known as a subscriber.
const GREETS_WITHIN: Duration = SILENCE;

/// How long subscribers may go on taking what they have not got when all publishers are closed.
const GRACE: Duration = Duration::from_secs(1);

/// How much is written at once.
const CHUNK: usize = 64 << 10;

/// A port that is bound, for all publishers of this process that name it; the last releases it.
#[derive(Debug)]
pub(super) struct Bound(Arc<Hub>);

#[derive(Debug)]
pub(super) struct Hub {
    listener: TcpListener,
    state: Mutex<State>,
    /// There is something to write.
    news: Condition,
    /// Something was written.
    pub(super) room: Condition,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Since when no publisher is left.
    closed: Option<Instant>,
    peers: BTreeMap<u64, Peer>,
    count: u64,
    /// How many are connected, subscribers or not.
    connected: usize,
}

/// One of the connections there may be.
struct Place(Arc<Hub>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.lock().connected -= 1;
    }
}

/// What a connection says, up to some time.
struct Timed<'a> {
    stream: &'a TcpStream,
    until: Option<Instant>,
}

impl Read for Timed<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize> {
        if let Some(until) = self.until {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Io::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
        }
        self.stream.read(bytes)
    }
}

/// Up to which message each subscriber is to have what was published.
pub(super) struct UnderWay(Vec<(u64, u64)>);

/// A subscriber that is connected.
#[derive(Debug)]
struct Peer {
    stream: Arc<TcpStream>,
    /// What the topics begin with that it wants, and how often it said so.
    wanted: HashMap<Vec<u8>, u32>,
    queue: VecDeque<Arc<[u8]>>,
    /// How many were put into the queue, and how many of them were written.
    pushed: u64,
    written: u64,
    /// What waits or is just written.
    bytes: usize,
}

static BOUND: PerProcess<Mutex<HashMap<Address, Weak<Bound>>>> = PerProcess::new(Mutex::default);

impl Bound {
    pub(super) fn get(address: &Address) -> Result<Arc<Self>> {
        let end = Instant::now() + PATIENCE;
        loop {
            match Self::try_get(address) {
                // Who had it may just be on its way out.
                Err(error) if error.kind() == Io::AddrInUse && Instant::now() < end => {
                    thread::sleep(Duration::from_millis(20));
                }
                result => return result,
            }
        }
    }

    fn try_get(address: &Address) -> Result<Arc<Self>> {
        let mut all = BOUND.get().lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bound) = all.get(address).and_then(Weak::upgrade) {
            return Ok(bound);
        }
        let hub = Arc::new(Hub {
            listener: TcpListener::bind((address.host(), address.port))?,
            state: Mutex::default(),
            news: Condition::default(),
            room: Condition::default(),
        });
        let bound = Arc::new(Self(Arc::clone(&hub)));
        thread::Builder::new().name("zmq-accept".to_owned()).spawn(move || hub.accept())?;
        all.retain(|_, bound| bound.strong_count() > 0);
        all.insert(address.clone(), Arc::downgrade(&bound));
        Ok(bound)
    }
}

impl std::ops::Deref for Bound {
    type Target = Arc<Hub>;

    fn deref(&self) -> &Arc<Hub> {
        &self.0
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.lock().closed = Some(Instant::now());
        // Gives up the port now, and also where a forked child still has the descriptor.
        let _ = rustix::net::shutdown(&self.listener, Shutdown::Both);
        self.news.notify_all();
    }
}

impl Hub {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no publisher is left for that long.
    fn is_closed_for(&self, time: Duration) -> bool {
        self.lock().closed.is_some_and(|closed| closed.elapsed() >= time)
    }

    /// Puts a message into the queues of who wants it.
    pub(super) fn push(&self, state: &mut State, topic: &str, frames: &Arc<[u8]>) {
        for peer in state.peers.values_mut().filter(|peer| peer.wants(topic)) {
            peer.queue.push_back(Arc::clone(frames));
            peer.pushed += 1;
            peer.bytes += frames.len();
        }
        self.news.notify_all();
    }

    fn accept(self: Arc<Self>) {
        while self.lock().closed.is_none() {
            let Ok((stream, _)) = self.listener.accept() else {
                thread::sleep(Duration::from_millis(10)); // no descriptor is left, perhaps
                continue;
            };
            let Some(place) = self.place() else {
                continue;
            };
            let serve = move || {
                // Whoever is disconnected comes again.
                let _ = Arc::clone(&place.0).serve(&Arc::new(stream), GREETS_WITHIN);
            };
            // Where there is no room for a thread, the connection is closed, and tried again.
            let _ = thread::Builder::new().name("zmq-read".to_owned()).spawn(serve);
        }
    }

    fn place(self: &Arc<Self>) -> Option<Place> {
        let mut state = self.lock();
        let is_free = state.connected < MOST_CONNECTED;
        state.connected += usize::from(is_free);
        is_free.then(|| Place(Arc::clone(self)))
    }

    /// Reads what a subscriber wants, until it leaves.
    fn serve(self: Arc<Self>, stream: &Arc<TcpStream>, greets_within: Duration) -> Result<()> {
        super::prepare(stream)?;
        stream.set_write_timeout(Some(GRACE))?; // to see whether this is closed
        let until = Some(Instant::now() + greets_within);
        let mut reader = BufReader::new(Timed { stream, until });
        wire::shake_hands(Role::Publisher, &mut reader, &mut &**stream)?;
        reader.get_mut().until = None;
        stream.set_read_timeout(Some(SILENCE))?;
        let id = {
            let mut state = self.lock();
            state.count += 1;
            let peer = Peer {
                stream: Arc::clone(stream),
                wanted: HashMap::new(),
                queue: VecDeque::new(),
                pushed: 0,
                written: 0,
                bytes: 0,
            };
            let id = state.count;
            state.peers.insert(id, peer);
            id
        };
        let (hub, target) = (Arc::clone(&self), Arc::clone(stream));
        let write = move || {
            if hub.write(id, &target).is_err() {
                let _ = target.shutdown(std::net::Shutdown::Both); // ends its reading
            }
            hub.remove(id);
        };
        let started = thread::Builder::new().name("zmq-write".to_owned()).spawn(write);
        let result = started.and_then(|_| self.read(id, &mut reader));
        self.remove(id);
        result
    }

    fn read(&self, id: u64, reader: &mut BufReader<Timed<'_>>) -> Result<()> {
        loop {
            // Reads on when it is removed, for a while: closing with bytes unread would cut off what was
            // written before.
            if has_fallen_silent(reader)? {
                if self.lock().peers.contains_key(&id) {
                    continue;
                }
                return Ok(());
            }
            let frame = wire::read_word(reader)?;
            let mut state = self.lock();
            let Some(peer) = state.peers.get_mut(&id) else {
                drop(state);
                if self.is_closed_for(SILENCE) {
                    return Ok(());
                }
                continue;
            };
            match wire::wish(&frame) {
                Wish::Subscribe(prefix) if prefix.len() > LONGEST_TOPIC => {} // no topic begins so
                Wish::Subscribe(prefix) => {
                    let count = peer.wanted.entry(prefix.to_vec()).or_default();
                    *count = count.saturating_add(1);
                    if peer.wanted.len() > MOST_WANTED {
                        return Err(Io::OutOfMemory.into());
                    }
                }
                Wish::Cancel(prefix) => {
                    if let Some(count) = peer.wanted.get_mut(prefix) {
                        *count -= 1;
                    }
                    peer.wanted.retain(|_, count| *count > 0);
                }
                Wish::Answer(frame) if peer.messages() < CAPACITY => {
                    peer.pushed += 1;
                    peer.bytes += frame.len();
                    peer.queue.push_back(frame.into());
                    self.news.notify_all();
                }
                Wish::Answer(_) | Wish::Nothing => {}
            }
            drop(state);
            self.room.notify_all(); // who cancels no longer holds anybody back
        }
    }

    /// Writes what is queued for a subscriber, until it is gone, or all of this is closed.
    fn write(&self, id: u64, stream: &TcpStream) -> Result<()> {
        let mut chunk = Vec::with_capacity(CHUNK);
        let mut state = self.lock();
        loop {
            let is_closed = state.closed.is_some();
            let Some(peer) = state.peers.get_mut(&id) else {
                return Ok(());
            };
            let batch = std::mem::take(&mut peer.queue);
            if batch.is_empty() {
                if is_closed {
                    return Ok(());
                }
                state = self.news.wait(state, None);
                continue;
            }
            drop(state);
            for frames in &batch {
                if chunk.len() + frames.len() > CHUNK {
                    self.write_all(stream, &chunk)?;
                    chunk.clear();
                }
                if frames.len() > CHUNK {
                    self.write_all(stream, frames)?;
                } else {
                    chunk.extend_from_slice(frames);
                }
            }
            self.write_all(stream, &chunk)?;
            chunk.clear();
            state = self.lock();
            if let Some(peer) = state.peers.get_mut(&id) {
                peer.written += batch.len() as u64;
                peer.bytes -= batch.iter().map(|frames| frames.len()).sum::<usize>();
            }
            self.room.notify_all();
        }
    }

    /// Writes all of it, however long that takes, unless this is closed.
    fn write_all(&self, mut stream: &TcpStream, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.is_closed_for(GRACE) {
                return Err(Io::TimedOut.into());
            }
            match stream.write(bytes) {
                Ok(0) => return Err(Io::WriteZero.into()),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if matches!(error.kind(), Io::WouldBlock | Io::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Forgets a subscriber: what was written to it still arrives.
    fn remove(&self, id: u64) {
        let peer = self.lock().peers.remove(&id);
        if let Some(peer) = peer {
            let _ = peer.stream.shutdown(std::net::Shutdown::Write);
        }
        self.news.notify_all();
        self.room.notify_all();
    }
}

/// Whether nothing comes for as long as a read may take.
fn has_fallen_silent(reader: &mut BufReader<Timed<'_>>) -> Result<bool> {
    match reader.fill_buf() {
        Ok([]) => Err(Io::UnexpectedEof.into()),
        Ok(_) => Ok(false),
        Err(error) if matches!(error.kind(), Io::WouldBlock | Io::TimedOut) => Ok(true),
        Err(error) => Err(error),
    }
}

impl State {
    /// Whether everyone who wants a topic has room for one more message.
    pub(super) fn has_room(&self, topic: &str) -> bool {
        let mut wanting = self.peers.values().filter(|peer| peer.wants(topic));
        wanting.all(|peer| peer.messages() < CAPACITY && peer.bytes < CAPACITY_BYTES)
    }

    /// What was published until now and is not on its way.
    pub(super) fn under_way(&self) -> UnderWay {
        let behind = self.peers.iter().filter(|(_, peer)| peer.messages() > 0);
        UnderWay(behind.map(|(id, peer)| (*id, peer.pushed)).collect())
    }

    /// Whether that is on its way by now, to who is still there.
    pub(super) fn is_written(&self, UnderWay(published): &UnderWay) -> bool {
        let mut peers = published.iter().map(|(id, pushed)| (self.peers.get(id), *pushed));
        peers.all(|(peer, pushed)| peer.is_none_or(|peer| peer.written >= pushed))
    }
}

impl Peer {
    fn messages(&self) -> usize {
        (self.pushed - self.written) as usize
    }

    fn wants(&self, topic: &str) -> bool {
        self.wanted.keys().any(|prefix| topic.as_bytes().starts_with(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind() -> Arc<Bound> {
        let free = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        Bound::get(&Address { host: "127.0.0.1".to_owned(), port: free }).unwrap()
    }

    /// A subscriber that shakes hands, subscribes to everything, and does nothing more.
    fn subscribe(bound: &Bound) -> TcpStream {
        let known = bound.lock().peers.len();
        let stream = TcpStream::connect(bound.listener.local_addr().unwrap()).unwrap();
        wire::shake_hands(Role::Subscriber, &mut &stream, &mut &stream).unwrap();
        (&stream).write_all(&wire::subscription("")).unwrap();
        wait_for(|| bound.lock().peers.values().filter(|peer| peer.wants("t")).count() > known);
        stream
    }

    fn wait_for(is_so: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_mins(1);
        while !is_so() {
            assert!(Instant::now() < end, "it takes too long");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn push(bound: &Bound, len: usize) {
        bound.push(&mut bound.lock(), "t", &wire::message("t", &vec![0; len]).into());
    }

    #[test]
    fn who_does_not_read_keeps_no_closed_publisher() {
        let bound = bind();
        let stopped = subscribe(&bound);
        for _ in 0..32 {
            push(&bound, 1 << 20); // more than sockets hold
        }
        let hub = Arc::downgrade(&bound.0);
        drop(bound);
        wait_for(|| hub.strong_count() == 0); // every thread has one
        drop(stopped);
    }

    #[test]
    fn who_greets_too_slowly_is_cut_off() {
        let bound = bind();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let slow = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        let (is_over, says) = (Arc::new(Mutex::new(false)), Duration::from_millis(20));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !*is_over.lock().unwrap() && (&slow).write_all(b"\xff").is_ok() {
                    thread::sleep(says); // a byte at a time, which never takes long
                }
            });
            let served = Arc::clone(&bound.0).serve(&Arc::new(theirs), says * 10);
            *is_over.lock().unwrap() = true;
            assert!(matches!(served.unwrap_err().kind(), Io::TimedOut | Io::WouldBlock));
        });
    }

    #[test]
    fn connections_and_wishes_are_bounded() {
        let bound = bind();
        let address = bound.listener.local_addr().unwrap();
        bound.lock().connected += MOST_CONNECTED;
        let refused = TcpStream::connect(address).unwrap();
        wire::shake_hands(Role::Subscriber, &mut &refused, &mut &refused).unwrap_err();
        bound.lock().connected -= MOST_CONNECTED;
        let mut taken = subscribe(&bound);
        let wishes = |long: usize| {
            let mut wishes = wire::subscription(&"x".repeat(LONGEST_TOPIC + 1)).repeat(long);
            for number in 1..MOST_WANTED {
                wishes.extend(wire::subscription(&number.to_string()));
            }
            wishes
        };
        let count = || bound.lock().peers.values().map(|peer| peer.wanted.len()).sum::<usize>();
        taken.write_all(&wishes(2)).unwrap();
        wait_for(|| count() == MOST_WANTED); // without those that are too long
        taken.write_all(&wire::subscription("one more")).unwrap();
        wait_for(|| count() == 0);
        wait_for(|| bound.lock().connected == 0);
    }

    #[test]
    fn flushing_is_for_what_was_published_before() {
        let bound = bind();
        let reader = subscribe(&bound);
        for _ in 0..32 {
            push(&bound, 1 << 20); // more than sockets hold
        }
        let before = bound.lock().under_way();
        assert!(!bound.lock().is_written(&before));
        let (mut stream, publisher) = (reader.try_clone().unwrap(), Arc::clone(&bound));
        let more = thread::spawn(move || {
            let mut bytes = vec![0; 1 << 20];
            while let Ok(count @ 1..) = stream.read(&mut bytes) {
                push(&publisher, count); // there is always as much to write
            }
        });
        wait_for(|| bound.lock().is_written(&before));
        let rest = bound.lock().under_way();
        assert!(!bound.lock().is_written(&rest));
        reader.shutdown(std::net::Shutdown::Both).unwrap();
        wait_for(|| bound.lock().is_written(&rest)); // who is gone holds nobody back
        more.join().unwrap();
    }
}

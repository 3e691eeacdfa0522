//! A socket that waits until a time, and no longer than until its end of the broker is closed.

use std::io::{self, Read, Write};
use std::net::ToSocketAddrs;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redis::io::tcp::socket2::{Domain, Protocol, SockAddr, Socket as Raw, Type};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::SendFlags;

use crate::connectors::redis::link::KEEPALIVE;
use crate::connectors::redis::place::Node;

/// Without a signal when the other side is gone.
#[cfg(not(target_vendor = "apple"))]
const QUIETLY: SendFlags = SendFlags::NOSIGNAL;
#[cfg(target_vendor = "apple")]
const QUIETLY: SendFlags = SendFlags::empty();

/// Ends the waiting of all sockets that heed it, for good.
#[derive(Debug)]
pub(super) struct Waker {
    woken: AtomicBool,
    /// What is written to the first makes the second readable.
    ends: io::Result<(UnixStream, UnixStream)>,
}

impl Default for Waker {
    fn default() -> Self {
        Self { woken: AtomicBool::new(false), ends: UnixStream::pair() }
    }
}

impl Waker {
    pub(super) fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        if let Ok((sender, _)) = &self.ends {
            let mut sender = sender;
            let _ = sender.write(&[1]);
        }
    }

    pub(super) fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }

    /// Sleeps, or less when it is woken.
    pub(super) fn sleep(&self, time: Duration) {
        match &self.ends {
            Ok((_, receiver)) => {
                let _ = poll(&mut [PollFd::new(receiver, PollFlags::IN)], timespec(time).as_ref());
            }
            Err(_) => std::thread::sleep(time),
        }
    }
}

fn timespec(time: Duration) -> Option<Timespec> {
    Timespec::try_from(time).ok()
}

/// When reading and writing are over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit<'a> {
    pub(super) until: Instant,
    /// To be woken is as if the time were up; `None` for what is done while an end is being closed.
    pub(super) waker: Option<&'a Arc<Waker>>,
}

impl Limit<'_> {
    /// Closing does not end it.
    pub(super) fn at(until: Instant) -> Self {
        Self { until, waker: None }
    }
}

/// A socket whose reads and writes are over at a time, with an error of kind `TimedOut`.
#[derive(Debug)]
pub(super) struct Socket {
    raw: Raw,
    waker: Option<Arc<Waker>>,
    until: Instant,
}

impl Socket {
    pub(super) fn connect(node: &Node, limit: Limit<'_>) -> io::Result<Self> {
        let try_connect = |domain, protocol, address: &SockAddr, until| {
            let raw = Raw::new(domain, Type::STREAM, protocol)?;
            if protocol.is_some() {
                raw.set_tcp_nodelay(true)?;
                raw.set_tcp_keepalive(&KEEPALIVE)?;
            }
            raw.set_nonblocking(true)?;
            let socket = Self { raw, waker: limit.waker.cloned(), until };
            match socket.raw.connect(address) {
                Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
                    socket.wait(PollFlags::OUT)?;
                    socket.raw.take_error()?.map_or(Ok(socket), Err)
                }
                connected => connected.map(|()| socket),
            }
        };
        match node {
            Node::Unix(path) => {
                try_connect(Domain::UNIX, None, &SockAddr::unix(path)?, limit.until)
            }
            Node::Tcp { host, port } => {
                let mut failure = io::Error::other("the host has no address");
                let mut addresses = (host.as_str(), *port).to_socket_addrs()?;
                while let Some(address) = addresses.next() {
                    // One that does not answer leaves time for the others.
                    let now = Instant::now();
                    let left = limit.until.saturating_duration_since(now);
                    let until = now + left / (1 + addresses.len() as u32); // there are few
                    let domain = Domain::for_address(address);
                    match try_connect(domain, Some(Protocol::TCP), &address.into(), until) {
                        Ok(socket) => return Ok(socket),
                        Err(error) => failure = error,
                    }
                }
                Err(failure)
            }
        }
    }

    pub(super) fn set_limit(&mut self, limit: Limit<'_>) {
        self.until = limit.until;
        self.waker = limit.waker.cloned();
    }

    fn wait(&self, events: PollFlags) -> io::Result<()> {
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            let is_woken = self.waker.as_ref().is_some_and(|waker| waker.is_woken());
            if left.is_zero() || is_woken {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let ready = match self.waker.as_deref().map(|waker| &waker.ends) {
                Some(Ok((_, waker))) => {
                    let waker = PollFd::new(waker, PollFlags::IN);
                    let mut both = [PollFd::new(&self.raw, events), waker];
                    poll(&mut both, timespec(left).as_ref()).map(|_| !both[0].revents().is_empty())
                }
                // No descriptor was left for the waker: it is looked at now and then.
                Some(Err(_)) => {
                    let left = left.min(Duration::from_millis(50));
                    let ready = &mut [PollFd::new(&self.raw, events)];
                    poll(ready, timespec(left).as_ref()).map(|ready| ready > 0)
                }
                None => {
                    let ready = &mut [PollFd::new(&self.raw, events)];
                    poll(ready, timespec(left).as_ref()).map(|ready| ready > 0)
                }
            };
            match ready {
                Ok(true) => return Ok(()),
                Ok(false) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Does what would block as soon as it does not.
    fn patiently<T>(
        &self,
        events: PollFlags,
        mut work: impl FnMut(&Raw) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match work(&self.raw) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(events)?,
                outcome => return outcome,
            }
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.patiently(PollFlags::IN, |mut raw| raw.read(buffer))
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.patiently(PollFlags::OUT, |raw| Ok(rustix::net::send(raw, bytes, QUIETLY)?))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! A socket that waits for the other side only so long.

use std::io::{self, IoSlice, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::find::Place;

/// A timeout of zero would mean to wait for ever.
const SHORTEST: Duration = Duration::from_millis(1);

/// How long to wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For the next byte.
    pub(super) silence: Duration,
    /// For all of it.
    pub(super) deadline: Option<Instant>,
}

impl Patience {
    /// For how long to wait now.
    ///
    /// # Errors
    /// When the time is up.
    fn left(self) -> io::Result<Duration> {
        let Some(deadline) = self.deadline else { return Ok(self.silence) };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the deadline has passed"));
        }
        Ok(left.min(self.silence))
    }
}

/// A connection as bytes.
#[derive(Debug)]
pub(super) struct Stream {
    socket: Socket,
    patience: Patience,
    /// What the socket's timeouts are set to.
    set: Option<Duration>,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    pub(super) fn connect(place: &Place, patience: Patience) -> io::Result<Self> {
        let socket = match place {
            Place::Unix(path) => Socket::Unix(connect_unix(path, patience.left()?)?),
            Place::Tcp(address) => Socket::Tcp(connect_tcp(address, patience)?),
        };
        Ok(Self { socket, patience, set: None })
    }

    /// From now on.
    pub(super) fn set_patience(&mut self, patience: Patience) {
        self.patience = patience;
    }

    /// Lets the next call block only as long as it may.
    fn limit(&mut self) -> io::Result<()> {
        let left = self.patience.left()?.max(SHORTEST);
        if self.set != Some(left) {
            for direction in [Timeout::Recv, Timeout::Send] {
                match &self.socket {
                    Socket::Unix(socket) => set_timeout(socket, direction, left)?,
                    Socket::Tcp(socket) => set_timeout(socket, direction, left)?,
                }
            }
            self.set = Some(left);
        }
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        self.limit()?;
        match &mut self.socket {
            Socket::Unix(socket) => socket.read(target),
            Socket::Tcp(socket) => socket.read(target),
        }
        .map_err(|error| told(error, "the endpoint is silent"))
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.limit()?;
        match &mut self.socket {
            Socket::Unix(socket) => socket.write_vectored(slices),
            Socket::Tcp(socket) => socket.write_vectored(slices),
        }
        .map_err(|error| told(error, "the endpoint takes nothing"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The error as people read it: sockets say "would block" when the time is up.
fn told(error: io::Error, silent: &'static str) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, silent),
        _ => error,
    }
}

fn set_timeout(socket: impl AsFd, direction: Timeout, time: Duration) -> io::Result<()> {
    Ok(sockopt::set_socket_timeout(socket, direction, Some(time))?)
}

/// Connects within a time: one that has too many clients waiting makes others wait for ever.
fn connect_unix(path: &Path, time: Duration) -> io::Result<UnixStream> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_timeout(&socket, Timeout::Send, time)?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) => Ok(socket.into()),
        Err(Errno::AGAIN) => {
            Err(io::Error::new(io::ErrorKind::TimedOut, "the endpoint takes no connections"))
        }
        Err(error) => Err(error.into()),
    }
}

fn connect_tcp(address: &str, patience: Patience) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, patience.left()?.max(SHORTEST)) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

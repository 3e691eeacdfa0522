//! A connection to the servers, and the runtime hidden behind it.
//!
//! The client is asynchronous; threads that call the library poll its futures themselves, and one
//! thread of the runtime moves bytes. A connection that breaks is not mended by the client: what it
//! had queued would arrive after a gap. Whoever needs one gets a new one, and sends again in order.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use async_nats::connection::State;
use async_nats::{Auth, AuthError, Client, ConnectErrorKind, ConnectOptions, ServerAddr};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout_at};

use super::Place;
use crate::brokers::PATIENCE;
use crate::error::{Error, ErrorKind, Result};

/// Between two tries, at first and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];
const CONNECTS_WITHIN: Duration = Duration::from_secs(5);
/// A server that leaves two of these unanswered is gone.
const PING_EVERY: Duration = Duration::from_secs(5);

/// What all ends of a broker share.
#[derive(Debug)]
pub(super) struct Link {
    place: Place,
    runtime: Option<Runtime>,
    current: Mutex<Current>,
}

#[derive(Debug, Default)]
struct Current {
    session: Option<Arc<Session>>,
    /// How many there were.
    sessions: u64,
    /// Makes the next, also while nobody waits for it: connections that take longer than any one call
    /// get made.
    attempt: Option<JoinHandle<Result<Client>>>,
}

/// A connection, until it breaks.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: Client,
    /// No other session of the link has it.
    pub(super) id: u64,
    /// Which server it is, and which run of it.
    pub(super) server: Arc<str>,
    /// Where the servers are, for errors.
    pub(super) servers: String,
}

impl Link {
    pub(super) fn new(place: &Place) -> Result<Self> {
        let mut builder = Builder::new_multi_thread();
        let builder = builder.worker_threads(1).max_blocking_threads(1).enable_all();
        let runtime = builder.thread_name("proxystore-nats").build();
        let runtime = runtime.map_err(|error| Error::io("start a thread for NATS", error))?;
        Ok(Self { place: place.clone(), runtime: Some(runtime), current: Mutex::default() })
    }

    /// Does the work on this thread, unless or until the end is closed.
    pub(super) fn run<T>(
        &self,
        operation: &'static str,
        closed: &Closed,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.block_on(async {
            tokio::select! {
                biased;
                () = closed.wait() => Err(crate::brokers::closed(operation)),
                done = work => done,
            }
        })
    }

    /// Does the work on this thread, which may be one of another runtime.
    pub(super) fn block_on<F: Future>(&self, work: F) -> F::Output {
        struct Parked(Thread);
        impl Wake for Parked {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let _timers = self.runtime.as_ref().map(Runtime::enter);
        let waker = Arc::new(Parked(thread::current())).into();
        // The other runtime may say that its task has done enough for now, and would wake nobody here.
        let work = tokio::task::unconstrained(work);
        let (mut work, mut context) = (pin!(work), Context::from_waker(&waker));
        loop {
            if let Poll::Ready(done) = work.as_mut().poll(&mut context) {
                return done;
            }
            thread::park();
        }
    }

    /// The connection, made anew if there is none; tried until the deadline.
    pub(super) async fn session(&self, deadline: Option<Instant>) -> Result<Arc<Session>> {
        let end = deadline.unwrap_or_else(|| Instant::now() + PATIENCE);
        let place = &self.place;
        let unanswered = || place.unreachable("no answer");
        let Some(mut current) = until(Some(end), self.current.lock()).await else {
            return Err(unanswered());
        };
        if let Some(session) = current.session.as_ref().filter(|session| session.is_alive()) {
            return Ok(Arc::clone(session));
        }
        current.session = None;
        let [mut pause, longest] = PAUSES;
        loop {
            let attempt =
                current.attempt.get_or_insert_with(|| tokio::spawn(place.clone().connect()));
            let Some(made) = until(Some(end), attempt).await else { return Err(unanswered()) };
            current.attempt = None;
            match made.unwrap_or_else(|_| Err(place.unreachable("the attempt broke off"))) {
                Ok(client) => {
                    current.sessions += 1;
                    let session = Arc::new(Session::new(client, current.sessions, place));
                    // It may have waited for long.
                    if session.is_alive() {
                        return Ok(Arc::clone(current.session.insert(session)));
                    }
                }
                Err(error) if !error.kind().is_retryable() || Instant::now() >= end => {
                    return Err(error);
                }
                Err(_) => {}
            }
            sleep(pause.min(end.saturating_duration_since(Instant::now()))).await;
            pause = (pause * 2).min(longest);
        }
    }
}

impl Place {
    async fn connect(self) -> Result<Client> {
        let place = &self;
        let servers = place.servers.iter().map(|server| server.parse::<ServerAddr>());
        let servers = servers.collect::<Result<Vec<_>, _>>();
        let servers = servers.map_err(|error| place.error(ErrorKind::Config, error.to_string()))?;
        let (login, is_made) = (place.login.clone(), Arc::new(AtomicBool::new(false)));
        let was_made = Arc::clone(&is_made);
        let options = ConnectOptions::with_auth_callback(move |_| {
            let auth = if was_made.load(Ordering::Relaxed) {
                Err(AuthError::new("a connection is used once"))
            } else {
                Ok(login.auth())
            };
            async { auth }
        });
        let options = options
            .name("proxystore")
            .ping_interval(PING_EVERY)
            .connection_timeout(CONNECTS_WITHIN)
            .max_reconnects(servers.len()) // all of which fail, see above
            .ignore_discovered_servers();
        let client = options.connect(servers).await.map_err(|error| match error.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => place
                .error(ErrorKind::Permission, "the server lets nobody in like this")
                .with_hint("check the user and the password of the URL"),
            ConnectErrorKind::ServerParse => place.error(ErrorKind::Config, error.to_string()),
            _ => place.unreachable(&error.to_string()),
        })?;
        is_made.store(true, Ordering::Relaxed);
        if !client.server_info().jetstream {
            return Err(place
                .error(ErrorKind::Config, "the server has no JetStream")
                .with_hint("start it as nats-server -js, with -sd and a folder for its messages"));
        }
        Ok(client)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background(); // a thread of another runtime may not wait
        }
    }
}

impl Session {
    fn new(client: Client, id: u64, place: &Place) -> Self {
        let server = client.server_info().server_id.into();
        Self { client, id, server, servers: place.shown() }
    }

    fn is_alive(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Does work that the server takes part in, until the deadline.
    pub(super) async fn within<T>(
        &self,
        deadline: Option<Instant>,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let silent = || Err(lost(&self.servers, "the server does not answer"));
        until(deadline, work).await.unwrap_or_else(silent)
    }
}

impl super::Login {
    fn auth(&self) -> Auth {
        let mut auth = Auth::new();
        match self {
            Self::Nobody => {}
            Self::Token(token) => auth.token = Some(token.clone()),
            Self::User(user, password) => {
                auth.username = Some(user.clone());
                auth.password = Some(password.clone());
            }
        }
        auth
    }
}

/// The error of a connection that broke, or of a server that does not answer: trying again helps.
pub(super) fn lost(servers: &str, cause: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Io, "use a NATS server", cause.to_string()).with("servers", servers)
}

/// Whether an error passes when the connection is made anew.
pub(super) fn passes(error: &Error) -> bool {
    error.kind() == ErrorKind::Io
}

/// Does the work, until the deadline.
pub(super) async fn until<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = T>,
) -> Option<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline.into(), work).await.ok(),
        None => Some(work.await),
    }
}

/// Whether an end was closed; wakes who waits.
#[derive(Debug)]
pub(super) struct Closed(watch::Sender<bool>);

impl Closed {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Closes; whether it was open.
    pub(super) fn close(&self) -> bool {
        !self.0.send_replace(true)
    }

    async fn wait(&self) {
        let _ = self.0.subscribe().wait_for(|closed| *closed).await;
    }
}

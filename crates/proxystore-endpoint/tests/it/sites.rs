//! Endpoints within this process, without listeners for clients: requests go to the service, as listeners would hand them over.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use iroh::SecretKey;
use proxystore::wire::{Answer, EndpointId, Fault, Name, Request, Stat};
use proxystore_endpoint::body::Body;
use proxystore_endpoint::config::{self, Access, Config, Peer};
use proxystore_endpoint::directory::Directory;
use proxystore_endpoint::peer::{Bounds, Peers};
use proxystore_endpoint::service::{Asker, Reply, Service};
use proxystore_endpoint::status::Counters;
use proxystore_endpoint::storage::Storage;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Short ones: what takes long elsewhere is tested here.
pub(crate) const BOUNDS: Bounds = Bounds {
    dial: Duration::from_secs(5),
    patience: Duration::from_secs(10),
    resume: Duration::from_secs(20),
    idle: Duration::from_mins(5),
};

/// Who an endpoint is, before it runs.
pub(crate) struct Identity(SecretKey);

impl Identity {
    pub(crate) fn new() -> Self {
        Self(SecretKey::generate())
    }

    pub(crate) fn secret(&self) -> SecretKey {
        self.0.clone()
    }

    pub(crate) fn id(&self) -> EndpointId {
        EndpointId::from_bytes(*self.0.public().as_bytes())
    }
}

/// An endpoint that runs.
pub(crate) struct Site {
    pub(crate) id: EndpointId,
    pub(crate) service: Arc<Service>,
    pub(crate) peers: Arc<Peers>,
    serving: JoinHandle<()>,
    objects: Objects,
}

/// The objects of an endpoint, which outlive its network.
#[derive(Clone)]
pub(crate) struct Objects {
    pub(crate) storage: Arc<Storage>,
    directory: Arc<TempDir>,
}

impl Objects {
    /// No objects.
    pub(crate) async fn none() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = config::Storage::default();
        let storage = Storage::open(&settings, directory.path(), None).await.unwrap();
        Self { storage: Arc::new(storage), directory: Arc::new(directory) }
    }
}

impl Site {
    pub(crate) async fn start(identity: &Identity, config: &Config) -> Self {
        Self::with(identity, config, &Objects::none().await, BOUNDS).await
    }

    pub(crate) async fn with(
        identity: &Identity,
        config: &Config,
        objects: &Objects,
        bounds: Bounds,
    ) -> Self {
        let counters = Arc::new(Counters::default());
        // The port of one that was stopped is free a moment later.
        let begun = Instant::now();
        let peers = loop {
            let counters = Arc::clone(&counters);
            match Peers::start(identity.secret(), config, counters, bounds).await {
                Ok(peers) => break peers,
                Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let service = Arc::new(Service {
            id: identity.id(),
            name: "site".into(),
            directory: Directory::at(objects.directory.path()),
            storage: Arc::clone(&objects.storage),
            peers: Some(Arc::clone(&peers)),
            counters,
            stop: CancellationToken::new(),
            started: Instant::now(),
        });
        let serving = tokio::spawn(Arc::clone(&peers).serve(Arc::clone(&service)));
        Self { id: identity.id(), service, peers, serving, objects: objects.clone() }
    }

    /// Tells it anew who is a peer.
    pub(crate) async fn reload(&self, config: &Config) -> Reply {
        let file = self.objects.directory.path().join("config.toml");
        std::fs::write(file, toml::to_string(config).unwrap()).unwrap();
        self.ask(Request::Reload, Bytes::new()).await
    }

    /// The UDP port for peers.
    pub(crate) fn port(&self) -> u16 {
        self.peers.addresses().iter().find(|address| address.is_ipv4()).unwrap().port()
    }

    /// Its network goes away in good order.
    pub(crate) async fn stop(self) {
        self.service.stop.cancel();
        self.peers.shutdown().await;
        self.serving.await.unwrap();
    }

    pub(crate) fn name(&self, id: &str, generation: u64) -> Name {
        Name { endpoint: self.id, id: id.into(), generation }
    }

    /// What a client would be answered, within a time that is generous.
    pub(crate) async fn ask(&self, request: Request, body: impl Into<Body>) -> Reply {
        let answer = self.service.answer(Asker::Client, request, body.into());
        tokio::time::timeout(Duration::from_mins(2), answer).await.expect("it hangs")
    }

    pub(crate) async fn put(&self, name: &Name, bytes: Bytes) {
        let request = Request::Put { name: name.clone(), ttl: None, shared: None };
        let reply = self.ask(request, bytes).await;
        assert_eq!(reply.answer, Answer::Done);
    }

    pub(crate) async fn get_part(
        &self,
        name: &Name,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<Option<(Stat, Bytes)>, proxystore::Error> {
        let request = Request::Get { name: name.clone(), range, shared: false };
        let reply = self.ask(request, Bytes::new()).await;
        match reply.answer {
            Answer::Object { stat, shared: None } => Ok(Some((stat, collect(reply.body).await?))),
            Answer::Absent => Ok(None),
            Answer::Failed(fault) => Err(fault.into_error("get it")),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn get(&self, name: &Name) -> Result<Option<Bytes>, proxystore::Error> {
        Ok(self.get_part(name, None).await?.map(|(_, bytes)| bytes))
    }

    /// The error that a request has to end in.
    pub(crate) async fn failure(&self, request: Request) -> proxystore::Error {
        match self.ask(request, Bytes::new()).await.answer {
            Answer::Failed(fault) => Fault::into_error(fault, "ask"),
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) async fn collect(body: Body) -> Result<Bytes, proxystore::Error> {
    let reading = tokio::time::timeout(Duration::from_mins(2), body.collect());
    let pieces = reading.await.expect("it hangs")?;
    let mut whole = Vec::new();
    for piece in pieces {
        whole.extend_from_slice(&piece);
    }
    Ok(whole.into())
}

/// A port that nobody has, and that nobody gets who asks for any.
pub(crate) fn free_port() -> u16 {
    let free = |port: &u16| UdpSocket::bind(("0.0.0.0", *port)).is_ok();
    let start = 20_000 + u16::try_from(std::process::id() % 6_000).unwrap();
    let next = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
    (start + next * 16..32_000).find(free).unwrap()
}

static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

/// Bytes that are all different from each other, as far as that goes.
pub(crate) fn bytes(len: usize) -> Bytes {
    let mut x = 0x9E37_79B9_7F4A_7C15_u64;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend_from_slice(&x.to_le_bytes());
    }
    out.truncate(len);
    out.into()
}

/// A configuration that admits others; those with a port are on this host.
pub(crate) fn admitting<'a>(
    others: impl IntoIterator<Item = (&'a Identity, Access, Option<u16>)>,
) -> Config {
    let mut config = Config::default();
    for (other, access, port) in others {
        config.peers.allow.push(Peer {
            id: other.id().to_string(),
            addresses: port.map(|port| format!("127.0.0.1:{port}")).into_iter().collect(),
            access,
            ..Peer::default()
        });
    }
    config
}

/// Two endpoints that admit each other; the second knows where the first is.
pub(crate) async fn pair() -> (Site, Site) {
    let (a, b) = (Identity::new(), Identity::new());
    let first = Site::start(&a, &admitting([(&b, Access::Full, None)])).await;
    let config = admitting([(&a, Access::Full, Some(first.port()))]);
    let second = Site::start(&b, &config).await;
    (first, second)
}

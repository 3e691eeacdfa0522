//! An endpoint that runs in this process, and a client of it.

use std::time::Duration;

use proxystore::connectors::endpoint::home::Card;
use proxystore::wire::greeting::{CHALLENGE, Challenge, Hello, PROOF, Role};
use proxystore::wire::{Answer, EndpointId, Name, Request};
use proxystore_endpoint::body::Body;
use proxystore_endpoint::daemon;
use proxystore_endpoint::directory::Directory;
use proxystore_endpoint::frames::{Incoming, send_request};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Longer than anything takes, on a busy machine too.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// An endpoint that runs until it is told to stop.
pub(crate) struct Running {
    pub(crate) card: Card,
    pub(crate) id: EndpointId,
    pub(crate) stop: CancellationToken,
    pub(crate) directory: Directory,
    task: JoinHandle<proxystore::Result<()>>,
    _folder: TempDir,
}

impl Running {
    /// Starts one with this text as its `config.toml`.
    pub(crate) async fn start(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::at(folder.path().join("site-a"));
        directory.create("site-a", &format!("name = \"site-a\"\n{config}")).unwrap();
        let (stop, (tell, told)) = (CancellationToken::new(), oneshot::channel());
        let task = tokio::spawn({
            let (directory, stop) = (directory.clone(), stop.clone());
            async move { daemon::run(&directory, stop, |card| tell.send(card.clone()).unwrap()).await }
        });
        let card = timeout(PATIENCE, told).await.unwrap().unwrap();
        let id = card.endpoint().unwrap();
        Self { card, id, stop, directory, task, _folder: folder }
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(self) {
        timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
    }

    pub(crate) async fn client(&self) -> Client {
        let stream = UnixStream::connect(self.directory.socket()).await.unwrap();
        let (read, mut write) = stream.into_split();
        let mut incoming = Incoming::new(read, PATIENCE);
        let (token, hello) = (self.directory.token().unwrap(), Hello::new().unwrap());
        write.write_all(&hello.encode()).await.unwrap();
        let challenge = Challenge::decode(&incoming.array::<CHALLENGE>().await.unwrap()).unwrap();
        write.write_all(&token.proof(Role::Client, &hello, &challenge)).await.unwrap();
        let proof = incoming.array::<PROOF>().await.unwrap();
        assert!(token.accepts(&proof, Role::Daemon, &hello, &challenge));
        let (_, welcome) = incoming.answer().await.unwrap().unwrap();
        assert!(matches!(welcome, Answer::Welcome(_)));
        Client { incoming, write }
    }

    pub(crate) fn name(&self, id: &str) -> Name {
        Name { endpoint: self.id, id: id.into(), generation: 1 }
    }
}

/// A client that was let in.
pub(crate) struct Client {
    incoming: Incoming<OwnedReadHalf>,
    pub(crate) write: OwnedWriteHalf,
}

impl Client {
    /// Asks, and takes the whole answer.
    pub(crate) async fn ask(&mut self, request: &Request, body: Body) -> Answer {
        send_request(&mut self.write, 1, request, body, PATIENCE).await.unwrap();
        self.answer().await
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        let (frame, answer) =
            timeout(PATIENCE, self.incoming.answer()).await.unwrap().unwrap().unwrap();
        self.incoming.whole(frame.body).await.unwrap();
        answer
    }

    /// What the endpoint says of itself.
    pub(crate) async fn status(&mut self) -> serde_json::Value {
        send_request(&mut self.write, 1, &Request::Status, Body::empty(), PATIENCE).await.unwrap();
        let (frame, _) = self.incoming.answer().await.unwrap().unwrap();
        let json = self.incoming.whole(frame.body).await.unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    /// The bytes that come, from whoever wants to read them in a way of its own. What is written is kept open.
    pub(crate) fn into_stream(self) -> UnixStream {
        self.incoming.into_inner().reunite(self.write).unwrap()
    }
}

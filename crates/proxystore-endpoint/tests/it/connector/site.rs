//! A daemon in this process, in a home of its own.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use proxystore::connectors::endpoint::EndpointConnector;
use proxystore::connectors::endpoint::home::Card;
use proxystore::connectors::{ConnectorConfig, Value};
use proxystore_endpoint::daemon;
use proxystore_endpoint::directory::Directory;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// One endpoint, and its daemon while it runs.
pub(crate) struct Site {
    home: TempDir,
    card: Card,
    over_tcp: bool,
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

/// How clients reach the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    Unix,
    Tcp,
}

impl Site {
    /// Configures an endpoint, with `storage` as its section of this name, and starts it.
    pub(crate) fn start(over: Over, storage: &str) -> Self {
        let mut site = Self::configure(over, storage);
        site.run();
        site
    }

    /// An endpoint that does not run.
    pub(crate) fn configure(over: Over, storage: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let config = format!(
            "name = \"site\"\n[clients]\nhost = \"127.0.0.1\"\n[peers]\nenabled = false\n\
             [storage]\n{storage}\n"
        );
        let card = Directory::at(home.path().join("site")).create("site", &config).unwrap();
        Self { home, card, over_tcp: over == Over::Tcp, running: None }
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn directory(&self) -> Directory {
        Directory::at(self.path())
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.home.path().join("site")
    }

    pub(crate) fn card(&self) -> Card {
        self.directory().card().unwrap().unwrap()
    }

    pub(crate) fn run(&mut self) {
        assert!(self.running.is_none(), "it runs already");
        let (stop, directory) = (CancellationToken::new(), self.directory());
        let (ready, is_ready) = mpsc::channel();
        let until = stop.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let run = daemon::run(&directory, until, |_| ready.send(()).unwrap());
            runtime.block_on(run).unwrap();
        });
        is_ready.recv().expect("the daemon starts");
        if self.over_tcp {
            let card = Card { socket: None, ..self.card() };
            self.directory().write_card(&card).unwrap();
        }
        self.running = Some((stop, thread));
    }

    pub(crate) fn stop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            stop.cancel();
            thread.join().expect("the daemon stops in order");
        }
    }

    /// The configuration of connectors to it.
    pub(crate) fn config(&self) -> ConnectorConfig {
        let mut config = ConnectorConfig::new(format!("endpoint:{}", self.card.id));
        let home = Value::Text(self.home().to_str().unwrap().to_owned());
        config.options.insert("home".into(), home);
        config
    }

    /// The same, for daemons that are slow to answer.
    pub(crate) fn impatient(&self, seconds: f64) -> ConnectorConfig {
        let mut config = self.config();
        config.options.insert("timeout".into(), Value::Float(seconds));
        config
    }

    pub(crate) fn open(&self) -> EndpointConnector {
        EndpointConnector::open(&self.config()).unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            stop.cancel();
            let _ = thread.join(); // a panic there was told, and one more here would abort
        }
    }
}

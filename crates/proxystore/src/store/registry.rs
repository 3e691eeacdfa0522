//! The stores of this process, by name.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::connectors;
use crate::error::{Error, ErrorKind, Result};
use crate::fork::PerProcess;
use crate::reference::Reference;
use crate::store::{Store, StoreConfig};

type Stores = HashMap<String, Store>;

// A forked child starts empty and opens stores again as proxies need them.
static STORES: PerProcess<Mutex<Stores>> = PerProcess::new(|| Mutex::new(HashMap::new()));

fn stores() -> MutexGuard<'static, Stores> {
    STORES.get().lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a store known to proxies that name it.
///
/// # Errors
/// [`ErrorKind::Config`] when another store has that name.
pub fn register(store: &Store) -> Result<()> {
    let mut stores = stores();
    match stores.get(store.name()) {
        Some(known) if known.is_same(store) => Ok(()),
        Some(_) => Err(Error::new(ErrorKind::Config, "register a store", "the name is taken")
            .with("store", store.name())
            .with_hint("choose another name, or close the other store first")),
        None => {
            stores.insert(store.name().to_owned(), store.clone());
            Ok(())
        }
    }
}

/// Forgets a store; it stays usable.
pub fn unregister(store: &Store) {
    let mut stores = stores();
    if stores.get(store.name()).is_some_and(|known| known.is_same(store)) {
        stores.remove(store.name());
    }
}

/// The registered store of a name.
pub fn get(name: &str) -> Option<Store> {
    stores().get(name).cloned()
}

/// All registered stores, in the order of their names.
pub fn all() -> Vec<Store> {
    let mut all: Vec<_> = stores().values().cloned().collect();
    all.sort_by(|left, right| left.name().cmp(right.name()));
    all
}

/// Finds or opens the store of a reference.
pub type Opener = fn(&Reference) -> Result<Store>;

static OPENER: OnceLock<Opener> = OnceLock::new();

/// Lets a bridge to another language, which has its own stores, find or open those of references;
/// the first one to say so does.
pub fn set_opener(opener: Opener) {
    let _ = OPENER.set(opener);
}

/// The store of a reference, opened if need be.
pub(crate) fn of_reference(reference: &Reference) -> Result<Store> {
    match OPENER.get() {
        Some(opener) => opener(reference),
        None => get_or_open(&reference.store),
    }
}

/// The registered store of a configuration, opened and registered if need be.
///
/// # Errors
/// [`ErrorKind::Config`] when the name is taken by a store on another channel, else what opening
/// the channel fails with.
pub fn get_or_open(config: &StoreConfig) -> Result<Store> {
    if let Some(store) = get(&config.name) {
        store.config().check_same(config)?;
        return Ok(store);
    }
    let connector = connectors::open(&config.connector)?; // without the lock: it may take long
    let mut normalized = config.clone();
    normalized.connector = connector.config();
    let opened = Store::assemble(normalized, connector);
    let store = stores().entry(config.name.clone()).or_insert_with(|| opened.clone()).clone();
    if !store.is_same(&opened) {
        store.config().check_same(opened.config())?; // another thread was faster
    }
    Ok(store)
}

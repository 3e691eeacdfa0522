//! Removes objects when their time has come.

use std::sync::Arc;

use proxystore::Result;

use super::index::Index;
use super::time::End;
use super::{EXPIRE, Inner, blocking};

/// So many are removed at once, lest one turn holds the lock for long.
const AT_ONCE: usize = 1024;

impl Inner {
    /// Lets the task know of an end that comes before all others.
    pub(super) fn heed(&self, index: &Index, end: Option<End>) {
        if end.is_some_and(|end| index.next_end() == Some(end.at)) {
            self.earlier_end.notify_one();
        }
    }

    /// Lets an object end then, also after a restart if it is there then.
    pub(super) async fn expire(
        self: &Arc<Self>,
        id: &str,
        generation: u64,
        end: Option<End>,
    ) -> Result<()> {
        let persisting = {
            let mut index = self.lock();
            index.check_open(EXPIRE)?;
            let Some(object) = index.find(id, generation) else { return Ok(()) };
            let persisting = object.disk.as_ref().is_some_and(|disk| disk.persists());
            let serial = object.serial;
            index.set_end(id, end);
            self.heed(&index, end);
            persisting.then_some(serial)
        };
        let Some(serial) = persisting else { return Ok(()) };
        let _turn = self.rewriting.lock().await;
        // What holds by now, if somebody else was faster.
        let found = self.lock().of_serial(id, serial).map(|o| (o.disk.clone(), o.head(id)));
        let Some((Some(disk), head)) = found else { return Ok(()) };
        let inner = Arc::clone(self);
        blocking(EXPIRE, move || {
            disk.rewrite(&head).map_err(|error| inner.disk_error(EXPIRE, error))
        })
        .await
    }
}

/// Runs until the storage is closed.
pub(super) async fn remove_expired(inner: Arc<Inner>) {
    loop {
        let next = inner.lock().next_end();
        let ended = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = inner.earlier_end.notified() => continue,
            () = ended => {}
        }
        loop {
            let expired = inner.lock().expired(AT_ONCE);
            if expired.is_empty() {
                break;
            }
            let _ = inner.discard(expired, false).await; // told in the log
        }
    }
}

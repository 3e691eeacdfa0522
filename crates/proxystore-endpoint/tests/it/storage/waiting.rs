//! Waiting for objects.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use super::*;

#[tokio::test]
async fn who_waits_gets_it_when_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Arc::new(open(&settings(4 * MIB, 0), dir.path()).await);
    let soon = Instant::now() + Duration::from_millis(5);
    assert!(storage.wait("a", 0, soon).await.unwrap().is_none());
    let deadline = Instant::now() + Duration::from_mins(1);
    let waiting: Vec<_> = (0..4000)
        .map(|n| {
            let storage = Arc::clone(&storage);
            tokio::spawn(async move { storage.wait(&format!("w{n}"), 2, deadline).await })
        })
        .collect();
    while storage.usage().waiting < 4000 {
        tokio::task::yield_now().await;
    }
    for n in 0..4000 {
        let id = format!("w{n}");
        put(&storage, &id, 1, &bytes(n, 10)).await.unwrap(); // not the one that is waited for
        put(&storage, &id, 2, &bytes(n, 20)).await.unwrap();
    }
    for task in waiting {
        let stat = task.await.unwrap().unwrap().unwrap();
        assert_eq!((stat.generation, stat.size), (2, 20));
    }
    assert_eq!(storage.usage().waiting, 0);
}

#[derive(Default)]
struct Counting(AtomicU64);

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn nobody_is_woken_for_another_id() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&settings(4 * MIB, 0), dir.path()).await;
    let woken = Arc::new(Counting::default());
    let waker = Waker::from(Arc::clone(&woken));
    let deadline = Instant::now() + Duration::from_mins(10);
    let ids: Vec<String> = (0..2000).map(|n| format!("w{n}")).collect();
    let mut waiting: Vec<_> =
        ids.iter().map(|id| Box::pin(storage.wait(id, 0, deadline))).collect();
    for wait in &mut waiting {
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    for n in 0..100 {
        put(&storage, &format!("other{n}"), 1, &bytes(n, 10)).await.unwrap();
    }
    assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    put(&storage, "w7", 1, &bytes(7, 10)).await.unwrap();
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    let Poll::Ready(Ok(Some(_))) = waiting[7].as_mut().poll(&mut Context::from_waker(&waker))
    else {
        panic!("it is there")
    };
    drop(waiting);
    assert_eq!(storage.usage().waiting, 0, "who gives up is counted no more");
}

#[tokio::test]
async fn closing_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(&settings(MIB, 0), dir.path()).await;
    let deadline = Instant::now() + Duration::from_mins(10);
    let close = async {
        tokio::task::yield_now().await;
        storage.close().await.unwrap();
    };
    let (waited, ()) = tokio::join!(storage.wait("a", 0, deadline), close);
    assert_eq!(waited.unwrap_err().kind(), ErrorKind::Closed);
}

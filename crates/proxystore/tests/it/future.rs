//! Futures on every channel: waiting, failing, cancelling, travelling.

use std::thread;
use std::time::Duration;

use proxystore::patterns::{Future, FutureOptions};
use proxystore::{ErrorKind, Proxy, Store};

/// Far longer than anything here takes, on any machine.
const PLENTY: Duration = Duration::from_mins(1);
const SHORT: Duration = Duration::from_millis(30);

/// A store on each native channel, and what must outlive it.
fn stores(name: &str) -> Vec<(Store, Option<tempfile::TempDir>)> {
    let folder = tempfile::tempdir().unwrap();
    let file = Store::open(&format!("file://{}", folder.path().display())).unwrap();
    let memory = Store::open(&format!("memory://{name}")).unwrap();
    let session = format!("{name}-{}", std::process::id());
    let shm = Store::open(&format!("shm://{session}")).unwrap();
    vec![(memory, None), (file, Some(folder)), (shm, None)]
}

fn travel<T: serde::Serialize, R: serde::de::DeserializeOwned>(value: &T) -> R {
    rmp_serde::from_slice(&rmp_serde::to_vec(value).unwrap()).unwrap()
}

#[test]
fn consumers_may_start_first_and_both_ends_travel() {
    for (store, _folder) in stores("future-travel") {
        let future: Future<String> = store.future().unwrap();
        let consumers: Vec<_> = (0..3)
            .map(|_| {
                let proxy: Proxy<String> = travel(&future.proxy());
                thread::spawn(move || proxy.resolve().unwrap().clone())
            })
            .collect();
        assert!(!future.is_done().unwrap());
        let producer: Future<String> = travel(&future);
        producer.set_result(&"here".to_owned()).unwrap();
        for consumer in consumers {
            assert_eq!(consumer.join().unwrap(), "here");
        }
        assert!(future.is_done().unwrap());
        assert_eq!(*future.result(Some(PLENTY)).unwrap(), "here");
        store.close(true).unwrap();
    }
}

#[test]
fn a_result_that_does_not_come_in_time_is_a_named_error() {
    for (store, _folder) in stores("future-late") {
        let options = FutureOptions { timeout: Some(SHORT), ..FutureOptions::default() };
        let future: Future<String> = store.future_with(&options).unwrap();
        let proxy = future.proxy();
        assert_eq!(proxy.resolve().unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!(future.result(Some(SHORT)).unwrap_err().kind(), ErrorKind::Timeout);
        future.set_result(&"late".to_owned()).unwrap();
        assert_eq!(*proxy, "late"); // a failed resolve is tried again
        store.close(true).unwrap();
    }
}

#[test]
fn failures_reach_consumers_with_type_and_text() {
    for (store, _folder) in stores("future-failed") {
        let future: Future<Vec<f64>> = store.future().unwrap();
        let proxy: Proxy<Vec<f64>> = travel(&future.proxy());
        let waiting = thread::spawn(move || proxy.resolve().unwrap_err());
        future.set_error(&std::fmt::Error).unwrap();
        let error = waiting.join().unwrap();
        assert_eq!(error.kind(), ErrorKind::Failed);
        let text = error.to_string();
        assert!(text.contains("fmt::Error") && text.contains("formatting"), "{text}");
        assert!(future.is_done().unwrap() && !future.is_cancelled().unwrap());
        store.close(true).unwrap();
    }
}

#[test]
fn cancelling_is_final_and_a_result_is_not() {
    for (store, _folder) in stores("future-cancel") {
        let future: Future<i64> = store.future().unwrap();
        let proxy = future.proxy();
        assert!(future.cancel().unwrap() && future.cancel().unwrap());
        assert_eq!(proxy.resolve().unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(future.set_result(&1).unwrap_err().kind(), ErrorKind::Cancelled);

        let future: Future<i64> = store.future().unwrap();
        future.set_result(&1).unwrap();
        assert!(!future.cancel().unwrap());
        future.set_result(&2).unwrap(); // the last one counts
        assert_eq!(*future.result(None).unwrap(), 2);
        store.close(true).unwrap();
    }
}

#[test]
fn an_evicting_future_is_consumed_once() {
    for (store, _folder) in stores("future-evict") {
        let options =
            FutureOptions { evict: true, timeout: Some(SHORT), ..FutureOptions::default() };
        let future: Future<i64> = store.future_with(&options).unwrap();
        future.set_result(&7).unwrap();
        let proxy = future.proxy();
        assert_eq!((*proxy, *proxy), (7, 7));
        assert!(!future.is_done().unwrap());
        assert!(future.result(None).is_err());
        store.close(true).unwrap();
    }
}

#[test]
fn a_future_whose_producer_is_gone_fails_instead_of_hanging() {
    for (store, _folder) in stores("future-lease") {
        let lease = Some(Duration::from_millis(300));
        let options = FutureOptions { lease, ..FutureOptions::default() };
        let future: Future<i64> = store.future_with(&options).unwrap();
        assert!(future.has_lease());
        let proxy = future.proxy();
        // As long as the future is held, consumers wait, well beyond the length of the lease.
        let limited = future.result(Some(Duration::from_secs(1)));
        assert_eq!(limited.unwrap_err().kind(), ErrorKind::Timeout);
        let waiting = thread::spawn(move || proxy.resolve().unwrap_err().kind());
        drop(future);
        assert_eq!(waiting.join().unwrap(), ErrorKind::Abandoned);

        // A result that was set stays, whoever is gone.
        let future: Future<i64> = store.future_with(&options).unwrap();
        let proxy = future.proxy();
        future.set_result(&3).unwrap();
        drop(future);
        assert_eq!(*proxy, 3);
        store.close(true).unwrap();
    }
}

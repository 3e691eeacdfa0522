//! Consumers in asynchronous code.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use futures_core::Stream;
use proxystore::patterns::stream::ItemStream;

use super::*;

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn waker() -> Waker {
    Waker::from(Arc::new(Unpark(thread::current())))
}

/// What comes next, for which this thread is woken.
fn next(mut items: Pin<&mut ItemStream<Bytes>>) -> Option<Result<Item<Bytes>>> {
    let (waker, end) = (waker(), Instant::now() + Duration::from_secs(20));
    loop {
        match items.as_mut().poll_next(&mut Context::from_waker(&waker)) {
            Poll::Ready(item) => return item,
            Poll::Pending => thread::park_timeout(Duration::from_secs(20)),
        }
        assert!(Instant::now() < end, "nobody woke it");
    }
}

#[test]
fn asynchronous_code_is_woken_and_ends_its_thread() {
    let (place, broker) = (place(), broker());
    let waker = waker();
    let mut items = pin!(consumer(&broker, "a").into_stream::<Bytes>().unwrap());
    assert!(items.as_mut().poll_next(&mut Context::from_waker(&waker)).is_pending());
    let producer = producer(&broker, &place.store).build().unwrap();
    producer.send("t", vec![7; LARGE]).unwrap();
    producer.close_topic("t").unwrap();
    let item = next(items.as_mut()).unwrap().unwrap();
    assert_eq!((item.proxy[0], place.files()), (7, 1));
    assert!(next(items.as_mut()).is_none());
    assert!(next(items.as_mut()).is_none());
    assert_eq!(place.files(), 0, "asking for the next acknowledged it");
}

#[test]
fn a_filter_that_panics_is_an_error_and_the_end() {
    let (place, broker) = (place(), broker());
    let consumer = consumer(&broker, "a").drop_if(|_| panic!("for the test"));
    let producer = producer(&broker, &place.store).build().unwrap();
    producer.send("t", vec![7; LARGE]).unwrap();
    let mut items = pin!(consumer.into_stream::<Bytes>().unwrap());
    assert_eq!(next(items.as_mut()).unwrap().unwrap_err().kind(), ErrorKind::Failed);
    assert!(next(items.as_mut()).is_none());
}

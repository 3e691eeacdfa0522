//! A consumer as a `Stream` of asynchronous Rust, whatever the runtime.
//!
//! The library is blocking, so a thread waits for events, one at a time and only when one was asked
//! for, and wakes the task that asked.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;

use futures_core::Stream;

use super::consumer::{Item, StreamConsumer};
use crate::codec::Decode;
use crate::error::{Error, ErrorKind, Result};

/// The items of a stream until its end, for asynchronous code; each is acknowledged when the next one
/// is asked for.
///
/// ```
/// # fn main() -> proxystore::Result<()> {
/// use std::pin::pin;
/// use std::task::{Context, Poll, Waker};
///
/// use futures_core::Stream;
/// use proxystore::brokers::{self, SubscribeOptions};
/// use proxystore::patterns::stream::{StreamConsumer, StreamProducer};
///
/// let broker = brokers::open("memory://asynchronous-example")?;
/// let subscriber = broker.subscriber(&["numbers"], &SubscribeOptions::default())?;
/// let producer: StreamProducer<Vec<u8>> = StreamProducer::builder(broker.publisher()?).build()?;
/// producer.send("numbers", vec![1, 2, 3])?;
/// producer.close_topic("numbers")?;
///
/// // With a runtime: `while let Some(item) = items.next().await`.
/// let mut items = pin!(StreamConsumer::new(subscriber).into_stream::<Vec<u8>>()?);
/// let mut context = Context::from_waker(Waker::noop());
/// let mut sum = 0;
/// loop {
///     match items.as_mut().poll_next(&mut context) {
///         Poll::Ready(Some(item)) => sum += item?.proxy.iter().sum::<u8>(),
///         Poll::Ready(None) => break,
///         Poll::Pending => std::thread::yield_now(),
///     }
/// }
/// assert_eq!(sum, 6);
/// # Ok(()) }
/// ```
pub struct ItemStream<T: 'static> {
    consumer: Arc<StreamConsumer>,
    shared: Arc<Shared<T>>,
}

struct Shared<T: 'static> {
    state: Mutex<State<T>>,
    asked: Condvar,
}

enum State<T: 'static> {
    Idle,
    Asked(Waker),
    Ready(Option<Result<Item<T>>>),
    /// The end was delivered, or the stream is gone.
    Over,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until an item is asked for; false when none will be.
    fn until_asked(&self) -> bool {
        let mut state = self.lock();
        loop {
            match *state {
                State::Asked(_) => return true,
                State::Over => return false,
                _ => state = self.asked.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl StreamConsumer {
    /// The items for asynchronous code; a thread of its own waits for them.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when no thread can be started.
    pub fn into_stream<T>(self) -> Result<ItemStream<T>>
    where
        T: Decode + Send + Sync + 'static,
    {
        let consumer = Arc::new(self);
        let shared = Arc::new(Shared { state: Mutex::new(State::Idle), asked: Condvar::new() });
        let (receiver, theirs) = (Arc::clone(&consumer), Arc::clone(&shared));
        let serve = move || {
            let mut items = receiver.iter();
            while theirs.until_asked() {
                // A task would wait for ever for a thread that panicked.
                let next = catch_unwind(AssertUnwindSafe(|| items.next()))
                    .unwrap_or_else(|_| Some(Err(panicked())));
                let is_last = next.is_none();
                let mut state = theirs.lock();
                if !matches!(*state, State::Over)
                    && let State::Asked(waker) = std::mem::replace(&mut *state, State::Ready(next))
                {
                    drop(state);
                    waker.wake();
                }
                if is_last {
                    return;
                }
            }
        };
        thread::Builder::new()
            .name("proxystore-stream".to_owned())
            .spawn(serve)
            .map_err(|source| Error::io("receive events for asynchronous code", source))?;
        Ok(ItemStream { consumer, shared })
    }
}

fn panicked() -> Error {
    Error::new(ErrorKind::Failed, "receive an event", "the consumer's filter panicked")
        .with_hint("see what the panic said, and let drop_if answer for any metadata")
}

impl<T> Stream for ItemStream<T> {
    type Item = Result<Item<T>>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.shared.lock();
        match std::mem::replace(&mut *state, State::Idle) {
            State::Ready(Some(item)) => return Poll::Ready(Some(item)),
            State::Ready(None) | State::Over => {
                *state = State::Over;
                return Poll::Ready(None);
            }
            State::Idle | State::Asked(_) => *state = State::Asked(context.waker().clone()),
        }
        drop(state);
        self.shared.asked.notify_one();
        Poll::Pending
    }
}

impl<T> Drop for ItemStream<T> {
    fn drop(&mut self) {
        *self.shared.lock() = State::Over;
        self.shared.asked.notify_one();
        let _ = self.consumer.close(); // ends the thread, if it waits
    }
}

impl<T> fmt::Debug for ItemStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ItemStream").field("consumer", &self.consumer).finish_non_exhaustive()
    }
}

//! Resolve once: whichever thread comes first calls the factory, the others wait for it.
//!
//! A proxy that is being resolved names its owner: a number for the thread and the generation of
//! the process, which a fork raises. So a child that inherits a half resolved proxy sees that its
//! owner belongs to another generation, that is, to a thread which does not exist in the child, and
//! takes over. What waiting threads share lives behind one pointer, which the fork hook replaces:
//! a mutex that some thread held at the time of the fork is never taken again.
//!
//! Nothing is held while a factory runs, so that it may resolve other proxies. Threads may then
//! wait for each other in a circle; whoever would close the circle gets an error instead. So does a
//! factory that needs its own proxy. Another greenlet of the same thread is no such recursion: the
//! call that is under way is not among its frames.
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use pyo3::ffi::{self, PyObject};

use super::object::{self, Held, ProxyObject};
use super::{guard, python};

/// How long a waiting thread sleeps before it looks for signals.
const CHECK_SIGNALS: Duration = Duration::from_millis(50);

/// The bits of an owner that number the thread; the rest is the generation.
const THREAD_BITS: u32 = 40;

/// What the waiting threads of one process share.
struct Waiting {
    /// How many forks lie between the first process and this one.
    generation: u64,
    /// How many threads wait, or are about to.
    count: AtomicUsize,
    /// Which thread waits for which proxy.
    waiters: Mutex<BTreeMap<u64, usize>>,
    changed: Condvar,
}

impl Waiting {
    fn leak(generation: u64) -> *mut Self {
        Box::into_raw(Box::new(Self {
            generation,
            count: AtomicUsize::new(0),
            waiters: Mutex::new(BTreeMap::new()),
            changed: Condvar::new(),
        }))
    }
}

static WAITING: AtomicPtr<Waiting> = AtomicPtr::new(null_mut());

fn waiting() -> &'static Waiting {
    // SAFETY: set when the module is made, replaced only by the fork hook, and never freed.
    unsafe { &*WAITING.load(Ordering::Acquire) }
}

/// Makes the state of this process, and has every child start with its own.
pub(super) fn start() {
    extern "C" fn in_child() {
        WAITING.store(Waiting::leak(waiting().generation + 1), Ordering::Release);
    }
    if WAITING.load(Ordering::Acquire).is_null() {
        WAITING.store(Waiting::leak(1), Ordering::Release);
        // SAFETY: the handler allocates, which the C library allows in a forked child, and no more.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    }
}

/// The owner this thread writes into the proxies it resolves; never zero.
fn me(waiting: &Waiting) -> u64 {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    thread_local!(static NUMBER: u64 = NEXT.fetch_add(1, Ordering::Relaxed) as u64);
    NUMBER.with(|number| *number) | (waiting.generation << THREAD_BITS)
}

/// A new reference to the target, or null with an exception set.
#[cold]
#[inline(never)]
pub(super) unsafe fn resolve(object: *mut PyObject) -> *mut PyObject {
    if guard::active() && !guard::allows(object) {
        return null_mut();
    }
    // The proxy must outlive its factory's call, whatever that does to the caller's reference.
    ffi::Py_INCREF(object);
    let Some(object) = Held::owned(object) else {
        return null_mut();
    };
    let object = object.as_ptr();
    let fields = ProxyObject::of(object);
    let owner = &(*fields).owner;
    loop {
        let target = (*fields).target;
        if !target.is_null() {
            ffi::Py_INCREF(target);
            return target;
        }
        let me = me(waiting());
        match owner.compare_exchange(0, me, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                let target = produce(object);
                release(fields);
                return target;
            }
            // This thread is resolving it already.
            Err(other) if other == me => {
                if recurses(object) {
                    let message = c"the factory of a proxy depends on the proxy itself";
                    ffi::PyErr_SetString(ffi::PyExc_RecursionError, message.as_ptr());
                    python::wrap_error(python::FAILED);
                    return null_mut();
                }
                return produce(object);
            }
            // Its owner stayed behind in the parent of a fork.
            Err(other) if other >> THREAD_BITS != me >> THREAD_BITS => {
                let _ = owner.compare_exchange(other, 0, Ordering::AcqRel, Ordering::Acquire);
            }
            Err(_) => {
                if !wait(fields, me) {
                    return null_mut();
                }
            }
        }
    }
}

unsafe fn release(fields: *mut ProxyObject) {
    (*fields).owner.store(0, Ordering::SeqCst);
    let waiting = waiting();
    if waiting.count.load(Ordering::SeqCst) != 0 {
        let _waiters = waiting.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.changed.notify_all();
    }
}

/// Sleeps, detached from the interpreter, until something changed; false with an exception set.
unsafe fn wait(fields: *mut ProxyObject, me: u64) -> bool {
    let thread = ffi::PyEval_SaveThread();
    let circle = {
        let waiting = waiting();
        waiting.count.fetch_add(1, Ordering::SeqCst);
        let mut waiters = waiting.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = (*fields).owner.load(Ordering::SeqCst);
        let circle = waits_for(&waiters, owner, me);
        if !circle && owner != 0 {
            waiters.insert(me, fields as usize);
            waiters = waiting
                .changed
                .wait_timeout(waiters, CHECK_SIGNALS)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            waiters.remove(&me);
        }
        drop(waiters);
        waiting.count.fetch_sub(1, Ordering::SeqCst);
        circle
    };
    ffi::PyEval_RestoreThread(thread);
    if circle {
        let message = c"proxies that are being resolved by several threads depend on each other";
        ffi::PyErr_SetString(ffi::PyExc_RecursionError, message.as_ptr());
        python::wrap_error(python::FAILED);
        return false;
    }
    ffi::PyErr_CheckSignals() == 0
}

/// Whether the thread `owner` waits, through however many others, for the thread `me`.
unsafe fn waits_for(waiters: &BTreeMap<u64, usize>, mut owner: u64, me: u64) -> bool {
    for _ in 0..=waiters.len() {
        if owner == me {
            return true;
        }
        let Some(awaited) = waiters.get(&owner) else {
            return false;
        };
        // A waiting thread keeps its proxy alive, and leaves the map before it lets go.
        owner = (*(*awaited as *const ProxyObject)).owner.load(Ordering::SeqCst);
    }
    false
}

thread_local! {
    /// The factory calls under way on this thread: the proxy, and the frame that used it.
    static CALLS: RefCell<Vec<(usize, usize)>> = const { RefCell::new(Vec::new()) };
}

/// Whether a frame that used this proxy, and waits for its factory, led to the present one.
unsafe fn recurses(object: *mut PyObject) -> bool {
    let users = CALLS.try_with(|calls| {
        let calls = calls.borrow();
        let of_this = calls.iter().filter(|(proxy, _)| *proxy == object as usize);
        of_this.map(|(_, frame)| *frame).collect::<Vec<_>>()
    });
    let Ok(users) = users else { return false };
    let mut frame = ffi::PyEval_GetFrame();
    ffi::Py_XINCREF(frame.cast());
    while let Some(held) = Held::owned(frame.cast()) {
        if users.contains(&(frame as usize)) {
            return true;
        }
        frame = ffi::PyFrame_GetBack(held.as_ptr().cast());
    }
    false
}

/// Calls the factory and keeps what it returns.
unsafe fn produce(object: *mut PyObject) -> *mut PyObject {
    let fields = ProxyObject::of(object);
    let factory = (*fields).factory;
    if factory.is_null() || factory == ffi::Py_None() {
        ffi::PyErr_SetString(ffi::PyExc_AttributeError, c"__proxy_factory__".as_ptr());
        python::wrap_error(python::NOT_INITIALIZED);
        return null_mut();
    }
    ffi::Py_INCREF(factory);
    let Some(factory) = Held::owned(factory) else {
        return null_mut();
    };
    let call = (object as usize, ffi::PyEval_GetFrame() as usize);
    let _ = CALLS.try_with(|calls| calls.borrow_mut().push(call));
    let produced = ffi::PyObject_CallNoArgs(factory.as_ptr());
    let _ = CALLS.try_with(|calls| {
        let mut calls = calls.borrow_mut();
        if let Some(place) = calls.iter().rposition(|other| *other == call) {
            calls.remove(place);
        }
    });
    if produced.is_null() {
        if ffi::PyErr_ExceptionMatches(ffi::PyExc_Exception) != 0 {
            python::wrap_error(python::FAILED);
        }
        return null_mut();
    }
    if (*fields).target.is_null() {
        ffi::Py_INCREF(produced);
        object::set_target(object, produced);
        return produced;
    }
    // A call nested in this one finished first, or the target was set by hand: keep that.
    ffi::Py_DECREF(produced);
    object::target(object)
}

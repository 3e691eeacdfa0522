//! The struct behind a proxy: how it is made, watched by the garbage collector, and freed.
use std::cell::{Cell, RefCell};
use std::ffi::{c_char, c_int, c_void};
use std::mem::replace;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed};

use pyo3::ffi::{self, PyObject, PyTypeObject};

use super::fields::set_default_class;
use super::{container, pickle, python, resolve};

/// The memory of a proxy. Every pointer is null or a strong reference, save `weak_references`,
/// which the interpreter manages.
#[repr(C)]
pub(super) struct ProxyObject {
    head: PyObject,
    /// What the factory returned; null while unresolved.
    pub(super) target: *mut PyObject,
    /// The callable that produces the target.
    pub(super) factory: *mut PyObject,
    /// The class to show while unresolved.
    pub(super) default_class: *mut PyObject,
    /// Its name as `module:qualname`, if it came as a name.
    pub(super) class_name: *mut PyObject,
    /// The hash to show while unresolved: an int, or the exception to raise.
    pub(super) default_hash: *mut PyObject,
    /// Attributes set on the proxy itself with `object.__setattr__`.
    pub(super) dict: *mut PyObject,
    pub(super) weak_references: *mut PyObject,
    pub(super) vectorcall: Option<ffi::vectorcallfunc>,
    /// The thread that is running the factory, see [`resolve`].
    pub(super) owner: AtomicU64,
    /// Whether the default hash means the same in another process.
    pub(super) portable_hash: bool,
}

impl ProxyObject {
    /// The one place that knows where the fields are.
    #[inline(always)]
    pub(super) fn of(object: *mut PyObject) -> *mut Self {
        object.cast()
    }
}

static TYPE: AtomicPtr<PyTypeObject> = AtomicPtr::new(null_mut());

#[inline(always)]
pub(super) fn proxy_type() -> *mut PyTypeObject {
    TYPE.load(Relaxed)
}

pub(super) fn set_proxy_type(created: *mut PyTypeObject) {
    TYPE.store(created, Relaxed);
}

#[inline(always)]
pub(super) unsafe fn is_proxy(object: *mut PyObject) -> bool {
    let (ours, its) = (proxy_type(), ffi::Py_TYPE(object));
    its == ours || ffi::PyType_IsSubtype(its, ours) != 0
}

/// A strong reference that a slot holds while it forwards.
pub(super) struct Held(*mut PyObject);

impl Held {
    /// Takes a reference of its own to a live object.
    #[inline(always)]
    pub(super) unsafe fn borrowed(pointer: *mut PyObject) -> Self {
        ffi::Py_INCREF(pointer);
        Self(pointer)
    }

    /// Takes over a new reference; `None` means that an exception is set.
    #[inline(always)]
    pub(super) fn owned(pointer: *mut PyObject) -> Option<Self> {
        if pointer.is_null() { None } else { Some(Self(pointer)) }
    }

    #[inline(always)]
    pub(super) fn as_ptr(&self) -> *mut PyObject {
        self.0
    }

    #[inline(always)]
    pub(super) fn into_ptr(self) -> *mut PyObject {
        std::mem::ManuallyDrop::new(self).0
    }
}

impl Drop for Held {
    #[inline(always)]
    fn drop(&mut self) {
        unsafe { ffi::Py_DECREF(self.0) }
    }
}

/// A new reference to the target, resolving if need be; null with an exception set.
#[inline(always)]
pub(super) unsafe fn target(object: *mut PyObject) -> *mut PyObject {
    let target = (*ProxyObject::of(object)).target;
    if target.is_null() {
        return resolve::resolve(object);
    }
    ffi::Py_INCREF(target);
    target
}

/// The target of a proxy that a slot was called on.
#[inline(always)]
pub(super) unsafe fn held(object: *mut PyObject) -> Option<Held> {
    Held::owned(target(object))
}

/// An operand of a binary slot: the target if it is a proxy, else itself.
#[inline(always)]
pub(super) unsafe fn operand(object: *mut PyObject) -> Option<Held> {
    if is_proxy(object) {
        return held(object);
    }
    ffi::Py_INCREF(object);
    Some(Held(object))
}

/// Replaces the target; takes over the reference, null to un-resolve.
pub(super) unsafe fn set_target(object: *mut PyObject, new: *mut PyObject) {
    let old = replace(&mut (*ProxyObject::of(object)).target, new);
    ffi::Py_XDECREF(old);
}

/// A new proxy without factory, or null with an exception set.
#[inline(always)]
pub(super) unsafe fn allocate(kind: *mut PyTypeObject) -> *mut PyObject {
    let object = ffi::PyType_GenericAlloc(kind, 0);
    if !object.is_null() {
        (*ProxyObject::of(object)).vectorcall = Some(container::vectorcall);
    }
    object
}

/// `Proxy.__new__`: the arguments are for `__init__`, and subclasses add their own.
pub(super) unsafe extern "C" fn tp_new(
    kind: *mut PyTypeObject,
    _arguments: *mut PyObject,
    _keywords: *mut PyObject,
) -> *mut PyObject {
    allocate(kind)
}

unsafe fn callable(factory: *mut PyObject) -> bool {
    if ffi::PyCallable_Check(factory) == 0 {
        ffi::PyErr_SetString(ffi::PyExc_TypeError, c"Factory must be callable.".as_ptr());
        return false;
    }
    true
}

/// `Proxy.__init__(factory, *, cache_defaults=False, target=None)`.
pub(super) unsafe extern "C" fn tp_init(
    object: *mut PyObject,
    arguments: *mut PyObject,
    keywords: *mut PyObject,
) -> c_int {
    let (mut factory, mut cache) = (null_mut::<PyObject>(), 0 as c_int);
    let mut target = ffi::Py_None();
    let mut names: [*mut c_char; 4] = [
        c"factory".as_ptr().cast_mut(),
        c"cache_defaults".as_ptr().cast_mut(),
        c"target".as_ptr().cast_mut(),
        null_mut(),
    ];
    let parsed = ffi::PyArg_ParseTupleAndKeywords(
        arguments,
        keywords,
        c"O|$pO:Proxy".as_ptr(),
        names.as_mut_ptr().cast(),
        &raw mut factory,
        &raw mut cache,
        &raw mut target,
    );
    if parsed == 0 || !callable(factory) {
        return -1;
    }
    ffi::Py_INCREF(factory);
    let old = replace(&mut (*ProxyObject::of(object)).factory, factory);
    ffi::Py_XDECREF(old);
    if target == ffi::Py_None() {
        return 0;
    }
    ffi::Py_INCREF(target);
    set_target(object, target);
    if cache != 0 { cache_defaults(object, target) } else { 0 }
}

/// The common call `Proxy(factory)` without a tuple of arguments and a parser.
pub(super) unsafe extern "C" fn type_vectorcall(
    kind: *mut PyObject,
    arguments: *const *mut PyObject,
    flagged: usize,
    names: *mut PyObject,
) -> *mut PyObject {
    let count = ffi::PyVectorcall_NARGS(flagged);
    if count == 1 && names.is_null() {
        let factory = *arguments;
        if !callable(factory) {
            return null_mut();
        }
        let object = allocate(kind.cast());
        if !object.is_null() {
            ffi::Py_INCREF(factory);
            (*ProxyObject::of(object)).factory = factory;
        }
        return object;
    }
    let Some(positional) = Held::owned(ffi::PyTuple_New(count)) else {
        return null_mut();
    };
    for i in 0..count {
        let value = *arguments.offset(i);
        ffi::Py_INCREF(value);
        ffi::PyTuple_SetItem(positional.as_ptr(), i, value);
    }
    let Some(keywords) = Held::owned(ffi::PyDict_New()) else {
        return null_mut();
    };
    if !names.is_null() {
        for i in 0..ffi::PyTuple_Size(names) {
            let (name, value) = (ffi::PyTuple_GetItem(names, i), *arguments.offset(count + i));
            if ffi::PyDict_SetItem(keywords.as_ptr(), name, value) < 0 {
                return null_mut();
            }
        }
    }
    let Some(object) = Held::owned(allocate(kind.cast())) else {
        return null_mut();
    };
    if tp_init(object.as_ptr(), positional.as_ptr(), keywords.as_ptr()) < 0 {
        return null_mut();
    }
    object.into_ptr()
}

/// Remembers class and hash of the target, to answer for it when unresolved elsewhere.
unsafe fn cache_defaults(object: *mut PyObject, target: *mut PyObject) -> c_int {
    let fields = ProxyObject::of(object);
    let Some(class) = Held::owned(ffi::PyObject_GetAttr(target, python::names().class)) else {
        return -1;
    };
    if set_default_class(object, class.as_ptr(), null_mut()) < 0 {
        return -1;
    }
    let hash = ffi::PyObject_Hash(target);
    let value = if hash != -1 {
        ffi::PyLong_FromSsize_t(hash)
    } else if ffi::PyErr_ExceptionMatches(ffi::PyExc_TypeError) != 0 {
        python::take_exception()
    } else {
        return -1;
    };
    if value.is_null() {
        return -1;
    }
    (*fields).portable_hash = hash == -1 || pickle::hash_is_portable(target, 8);
    let old = replace(&mut (*fields).default_hash, value);
    ffi::Py_XDECREF(old);
    0
}

pub(super) unsafe extern "C" fn tp_traverse(
    object: *mut PyObject,
    visit: ffi::visitproc,
    argument: *mut c_void,
) -> c_int {
    let fields = &*ProxyObject::of(object);
    for reference in [
        ffi::Py_TYPE(object).cast(),
        fields.target,
        fields.factory,
        fields.default_class,
        fields.default_hash,
        fields.dict,
    ] {
        if !reference.is_null() {
            let stop = visit(reference, argument);
            if stop != 0 {
                return stop;
            }
        }
    }
    0
}

pub(super) unsafe extern "C" fn tp_clear(object: *mut PyObject) -> c_int {
    let fields = &mut *ProxyObject::of(object);
    for field in [
        &raw mut fields.target,
        &raw mut fields.factory,
        &raw mut fields.default_class,
        &raw mut fields.class_name,
        &raw mut fields.default_hash,
        &raw mut fields.dict,
    ] {
        let reference = replace(&mut *field, null_mut());
        ffi::Py_XDECREF(reference);
    }
    0
}

/// How many proxies may be freed inside one another before the rest waits its turn: a chain of a
/// million proxies would else overflow the stack.
const DEPTH: u32 = 50;

thread_local! {
    static FREEING: Cell<u32> = const { Cell::new(0) };
    static DEFERRED: RefCell<Vec<*mut PyObject>> = const { RefCell::new(Vec::new()) };
}

pub(super) unsafe extern "C" fn tp_dealloc(object: *mut PyObject) {
    ffi::PyObject_GC_UnTrack(object.cast());
    if !(*ProxyObject::of(object)).weak_references.is_null() {
        ffi::PyObject_ClearWeakRefs(object);
    }
    let depth = FREEING.get();
    if depth >= DEPTH && DEFERRED.try_with(|waiting| waiting.borrow_mut().push(object)).is_ok() {
        return;
    }
    FREEING.set(depth + 1);
    free(object);
    if depth == 0 {
        while let Ok(Some(next)) = DEFERRED.try_with(|waiting| waiting.borrow_mut().pop()) {
            free(next);
        }
    }
    FREEING.set(depth);
}

unsafe fn free(object: *mut PyObject) {
    let kind = ffi::Py_TYPE(object);
    tp_clear(object);
    ffi::PyObject_GC_Del(object.cast());
    ffi::Py_DECREF(kind.cast());
}

//! Stored bytes as a Python object with the buffer protocol: arrays are made on it without a copy.
#![expect(unsafe_code, reason = "the buffer protocol hands out raw memory")]

use std::collections::BTreeSet;
use std::ffi::{c_int, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

use proxystore::Buffer;
use proxystore::codec::Order;
use pyo3::ffi;
use pyo3::prelude::*;

/// Bytes of a channel; `memoryview(it)` reads them, and writes them where they are private.
#[pyclass(name = "Buffer", module = "proxystore_rs._core", frozen, weakref)]
pub(crate) struct PyStoredBytes {
    bytes: Buffer,
    writable: bool,
    allocated: bool,
}

/// Addresses of memory that a channel handed out and that was not put yet. Only touched while
/// attached to the interpreter, so that a fork never finds it locked.
static ALLOCATED: Mutex<BTreeSet<usize>> = Mutex::new(BTreeSet::new());

fn allocated() -> MutexGuard<'static, BTreeSet<usize>> {
    ALLOCATED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the bytes start memory that a channel handed out and that was not put yet.
pub(crate) fn is_allocated(bytes: &[u8]) -> bool {
    allocated().contains(&(bytes.as_ptr() as usize))
}

/// Notes that memory of a channel was put: putting it again copies it.
pub(crate) fn was_put(bytes: &[u8]) {
    allocated().remove(&(bytes.as_ptr() as usize));
}

impl Drop for PyStoredBytes {
    fn drop(&mut self) {
        if self.allocated {
            was_put(&self.bytes);
        }
    }
}

impl PyStoredBytes {
    /// Memory that a channel handed out, to be filled and put.
    pub(crate) fn allocated(bytes: Buffer) -> Self {
        allocated().insert(bytes.as_ptr() as usize);
        Self { bytes, writable: true, allocated: true }
    }

    /// `writable` memory must be private to the receiver.
    pub(crate) fn new(bytes: Buffer, writable: bool) -> Self {
        let writable = writable && bytes.is_writable();
        Self { bytes, writable, allocated: false }
    }
}

#[pymethods]
impl PyStoredBytes {
    fn __len__(&self) -> usize {
        self.bytes.len()
    }

    // SAFETY (of the protocol): the exporter is kept alive by the view, the memory by the exporter.
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let this = slf.get();
        let len = ffi::Py_ssize_t::try_from(this.bytes.len())?;
        // SAFETY: the interpreter passes a valid view; the memory lives as long as `slf`.
        let status = unsafe {
            ffi::PyBuffer_FillInfo(
                view,
                slf.as_ptr(),
                this.bytes.as_ptr().cast::<c_void>(),
                len,
                c_int::from(!this.writable),
                flags,
            )
        };
        if status == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

/// A view of the memory behind a Python object, released when dropped.
///
/// Dropping attaches to the interpreter; once that is gone, the memory stays as it is.
pub(crate) struct View(Box<ffi::Py_buffer>);

// SAFETY: the exporter keeps the memory in place while the view exists, whatever the thread.
unsafe impl Send for View {}
// SAFETY: as above; the bytes are only read.
unsafe impl Sync for View {}

impl View {
    /// The contiguous bytes of an object, in whichever order they lie in memory.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let mut view = Box::new(ffi::Py_buffer::new());
        // SAFETY: a valid object and a fresh view.
        let status = unsafe {
            ffi::PyObject_GetBuffer(object.as_ptr(), &raw mut *view, ffi::PyBUF_ANY_CONTIGUOUS)
        };
        if status == 0 { Ok(Self(view)) } else { Err(PyErr::fetch(object.py())) }
    }

    /// Lengths of the dimensions, and which index varies fastest.
    pub(crate) fn shape_and_order(&self) -> (Vec<u64>, Order) {
        let dimensions = usize::try_from(self.0.ndim).unwrap_or_default();
        if dimensions == 0 || self.0.shape.is_null() {
            return (Vec::new(), Order::C);
        }
        // SAFETY: the exporter fills `ndim` lengths when asked for the shape.
        let shape = unsafe { std::slice::from_raw_parts(self.0.shape, dimensions) };
        let shape = shape.iter().map(|n| u64::try_from(*n).unwrap_or_default()).collect();
        // SAFETY: a filled view and a documented order letter.
        let is_c =
            unsafe { ffi::PyBuffer_IsContiguous(&raw const *self.0, b'C'.cast_signed()) } != 0;
        (shape, if is_c { Order::C } else { Order::F })
    }

    /// The bytes. Python code that writes to them meanwhile races with the reader, as it does
    /// with every consumer of the buffer protocol.
    pub(crate) fn bytes(&self) -> &[u8] {
        let len = usize::try_from(self.0.len).unwrap_or_default();
        if len == 0 {
            return &[];
        }
        // SAFETY: the exporter guarantees `len` contiguous bytes at `buf` until release.
        unsafe { std::slice::from_raw_parts(self.0.buf.cast::<u8>(), len) }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let _ = Python::try_attach(|_| {
            // SAFETY: filled by PyObject_GetBuffer, released once, with the interpreter attached.
            unsafe { ffi::PyBuffer_Release(&raw mut *self.0) };
        });
    }
}

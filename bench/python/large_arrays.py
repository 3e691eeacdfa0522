"""Large arrays on one host: one process puts, another one gets, and reads.

`put` is from the array to a pickled reference; `get` is from that reference to an array in the
other process; `get + sum` also adds up all its elements. Floors and neighbours stand beside
the stores: a plain memory copy, multiprocessing.shared_memory by hand, and Ray.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import importlib
import os
import pickle
import shutil
import time
import traceback
from collections.abc import Callable, Mapping
from multiprocessing import resource_tracker, shared_memory
from typing import Any

import numpy as np

import harness
from harness import Report, Side, Worker, ratio_text, size_text, time_text

MEASURES = ("put", "get", "get + sum")
Times = dict[str, float | None]


class Pair:
    """A side: it puts here, and gets in a process forked for that purpose.

    Subclasses say how to `put` (array to reference bytes), `get` (reference bytes to array)
    and `free`. `begin` and `end` bracket the life of one process, this one or the reader.
    """

    def __init__(self) -> None:
        self.arrays: dict[int, Any] = {}
        ours, theirs = os.pipe(), os.pipe()
        self.reader = os.fork()
        if self.reader == 0:
            os.close(ours[1])  # or the end of the requests would never be seen
            os.close(theirs[0])
            try:
                self.begin(reader=True)
                self.read(os.fdopen(ours[0], "rb"), os.fdopen(theirs[1], "wb"))
                self.end()
            except Exception:
                traceback.print_exc()
            finally:
                os._exit(0)
        os.close(ours[0])
        os.close(theirs[1])
        self.requests, self.answers = os.fdopen(ours[1], "wb"), os.fdopen(theirs[0], "rb")
        self.begin(reader=False)

    def begin(self, *, reader: bool) -> None:
        """Open what this process needs."""

    def end(self) -> None:
        """Close it."""

    def put(self, array: Any) -> bytes:
        raise NotImplementedError

    def get(self, reference: bytes) -> Any:
        raise NotImplementedError

    def free(self, reference: bytes) -> None:
        """Give the stored array back."""

    def drop(self, array: Any) -> None:
        """In the reader: let go of what `get` returned."""

    def read(self, requests: Any, answers: Any) -> None:
        """The reader: get, sum, tell how long that took."""
        while line := requests.readline():
            reference = base64.b64decode(line)
            start = time.perf_counter()
            array = self.get(reference)
            got = time.perf_counter()
            total = float(array.sum())
            end = time.perf_counter()
            self.drop(array)
            del array
            answers.write(pickle.dumps((got - start, end - start, total)))
            answers.flush()

    def array(self, size: int) -> Any:
        """An array of that many bytes, the same one every time."""
        if size not in self.arrays:
            self.arrays.clear()
            self.arrays[size] = np.arange(size // 8, dtype=np.float64)
        return self.arrays[size]

    def measure(self, size: int) -> Times:
        """Seconds to put, get, and get and sum."""
        array = self.array(size)
        start = time.perf_counter()
        reference = self.put(array)
        put = time.perf_counter() - start
        got, summed, total = self.ask(reference)
        self.free(reference)
        if total != float(array.sum()):
            raise AssertionError("the reader's sum differs")
        return {"put": put, "get": got, "get + sum": summed}

    def ask(self, reference: bytes) -> tuple[float, float, float]:
        """Have the reader get it."""
        self.requests.write(base64.b64encode(reference) + b"\n")
        self.requests.flush()
        answer: tuple[float, float, float] = pickle.load(self.answers)
        return answer

    def prepare(self, size: int) -> None:
        """Make the array beforehand, so that a watched put does nothing else."""
        self.array(size)

    def put_and_free(self, size: int) -> None:
        """One put, for those who watch memory."""
        self.free(self.put(self.array(size)))

    def close(self) -> None:
        self.requests.close()
        os.waitpid(self.reader, 0)
        self.end()


class Memcpy(Pair):
    """The floor: a copy into memory that is already there; a sum in place."""

    def put(self, array: Any) -> bytes:
        if len(self.buffers[0]) != len(array):
            self.buffers = [np.ones(len(array)), np.ones(len(array))]
        self.buffers.reverse()
        self.buffers[0][:] = array
        return str(array.nbytes).encode()

    def get(self, reference: bytes) -> Any:
        return self.array(int(reference))

    def begin(self, *, reader: bool) -> None:
        self.buffers = [np.ones(1), np.ones(1)]

    def prepare(self, size: int) -> None:
        self.put(self.array(size))
        self.put(self.array(size))

    def measure(self, size: int) -> Times:
        self.put(self.array(size))
        self.ask(str(size).encode())
        return {**super().measure(size), "get": None}


class ByHand(Pair):
    """multiprocessing.shared_memory, with the shape known to both ends."""

    def begin(self, *, reader: bool) -> None:
        self.open: dict[str, Any] = {}

    def put(self, array: Any) -> bytes:
        segment = shared_memory.SharedMemory(create=True, size=array.nbytes)
        there: Any = np.ndarray(array.shape, array.dtype, segment.buf)
        there[:] = array
        self.open[segment.name] = segment
        return f"{segment.name} {len(array)}".encode()

    def get(self, reference: bytes) -> Any:
        name, length = reference.decode().split()
        segment = shared_memory.SharedMemory(name)
        resource_tracker.unregister(segment._name, "shared_memory")  # type: ignore[attr-defined]
        self.open["read"] = segment
        return np.ndarray(int(length), np.float64, segment.buf)

    def drop(self, array: Any) -> None:
        self.open.pop("read")  # closes when the array goes

    def free(self, reference: bytes) -> None:
        segment = self.open.pop(reference.decode().split()[0])
        segment.close()
        # The reader took it off the tracker's list, which both processes share.
        resource_tracker.register(segment._name, "shared_memory")
        segment.unlink()


class Store(Pair):
    """A library with upstream's interface, on one of its connectors."""

    def __init__(
        self, package: str, connector: str, kind: str, channel: str, **options: Any
    ) -> None:
        self.package, self.connector, self.kind = package, connector, kind
        self.channel, self.options = channel, options
        super().__init__()

    def begin(self, *, reader: bool) -> None:
        self.proxies = importlib.import_module(f"{self.package}.proxy")
        stores = importlib.import_module(f"{self.package}.store")
        module = importlib.import_module(f"{self.package}.connectors.{self.connector}")
        self.clears = not reader
        self.store = None
        if not reader:  # the reader opens the store from the reference
            made = getattr(module, self.kind)(self.channel)
            name = self.channel.rsplit("/", 1)[-1]
            self.store = stores.Store(name, made, cache_size=0, register=True, **self.options)

    def end(self) -> None:
        if self.store is not None:
            self.store.close()

    def put(self, array: Any) -> bytes:
        assert self.store is not None
        return pickle.dumps(self.store.proxy(array, populate_target=False))

    def get(self, reference: bytes) -> Any:
        return self.proxies.extract(pickle.loads(reference))

    def free(self, reference: bytes) -> None:
        assert self.store is not None
        self.store.evict(self.proxies.get_factory(pickle.loads(reference)).key)


class ReadOnly(Store):
    """The same, for consumers that only read: pages stay mapped between objects."""

    def __init__(self, *arguments: str) -> None:
        super().__init__(*arguments, read_only=True)


class Empty(Store):
    """The array is allocated by the store, and put from where it is."""

    def measure(self, size: int) -> Times:
        assert self.store is not None
        array = self.store.empty(size // 8, np.float64)
        array[:] = self.array(size)
        start = time.perf_counter()
        reference = self.put(array)
        put = time.perf_counter() - start
        got, summed, total = self.ask(reference)
        self.free(reference)
        if total != float(self.array(size).sum()):
            raise AssertionError("the reader's sum differs")
        return {"put": put, "get": got, "get + sum": summed}

    def put_and_free(self, size: int) -> None:
        assert self.store is not None
        array = self.store.empty(size // 8, np.float64)
        array[:] = 1
        self.free(self.put(array))


class Ray(Pair):
    """Ray's object store: the driver puts, an actor gets."""

    def __init__(self) -> None:
        self.arrays = {}
        import ray

        self.ray = ray
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=4_000_000_000,
        )

        @ray.remote(num_cpus=1)
        class Reader:
            def read(self, references: list[Any]) -> tuple[float, float, float]:
                start = time.perf_counter()
                array = ray.get(references[0])
                got = time.perf_counter()
                total = float(array.sum())
                return got - start, time.perf_counter() - start, total

        self.reader = Reader.remote()  # type: ignore[attr-defined,assignment]

    def put(self, array: Any) -> Any:
        return self.ray.put(array)

    def ask(self, reference: Any) -> tuple[float, float, float]:
        answer: tuple[float, float, float] = self.ray.get(self.reader.read.remote([reference]))  # type: ignore[attr-defined]
        return answer

    def close(self) -> None:
        self.ray.shutdown()


def shm_side(make: Callable[..., Any], name: str) -> Side:
    arguments = ("proxystore_rs", "shm", "SharedMemoryConnector", f"bench-{name}-{os.getpid()}")
    return Side(make, arguments, "ours", ("numpy", "proxystore-rs"))


def file_side(package: str, environment: str, distribution: str) -> Side:
    arguments = (package, "file", "FileConnector", f"/dev/shm/bench-{environment}-{os.getpid()}")
    return Side(Store, arguments, environment, ("numpy", distribution))


UPSTREAM = "upstream, file on tmpfs"
SIDES = {
    "memcpy": Side(Memcpy),
    "shared_memory by hand": Side(ByHand),
    "ours, shm": shm_side(Store, "private"),
    "ours, shm read-only": shm_side(ReadOnly, "read-only"),
    "ours, store.empty": shm_side(Empty, "empty"),
    "ours, file on tmpfs": file_side("proxystore_rs", "ours", "proxystore-rs"),
    UPSTREAM: file_side("proxystore", "upstream", "proxystore"),
    "Ray": Side(Ray, (), "ray", ("numpy", "ray")),
}


def compare(workers: Mapping[str, Worker], options: argparse.Namespace) -> None:
    report = Report("large_arrays", "Large arrays on one host, another process reads", options)
    report.versions(workers)
    sizes = [1_000, 1_000_000, 10_000_000, 100_000_000] + [1_000_000_000] * options.full
    sizes = [size for size in sizes if size <= options.largest]
    curves: dict[str, dict[str, dict[int, float]]] = {
        measure: {name: {} for name in workers} for measure in MEASURES
    }
    for size in sizes:
        need = size * 2 * len(workers)
        free = shutil.disk_usage("/dev/shm").free
        if free < need:
            report.text(f"{size_text(size)} left out: /dev/shm has {size_text(free)} free.")
            continue
        rounds = options.rounds * (20 if size <= 1_000 else 3 if size <= 1_000_000 else 1)

        def measure(worker: Worker, size: int = size) -> Any:
            return worker.call("measure", size=size)

        answers = harness.interleave(workers, rounds, measure, warm=3)
        found: dict[str, Times] = {}
        for name, samples in answers.items():
            known = [m for m in MEASURES if samples[0][m] is not None]
            middle = harness.medians([{m: s[m] for m in known} for s in samples])
            found[name] = {m: middle.get(m) for m in MEASURES}
            for m in known:
                curves[m][name][size] = middle[m]
        floor, upstream = found.get("memcpy", {}), found.get(UPSTREAM, {})
        rows = [
            (
                name,
                *(time_text(values[m]) for m in MEASURES),
                ratio_text(values["put"], floor.get("put")),
                *(ratio_text(upstream.get(m), values[m]) for m in MEASURES),
            )
            for name, values in found.items()
        ]
        header = ("side", *MEASURES, "put / memcpy", *(f"{m}: upstream / side" for m in MEASURES))
        report.table(f"{size_text(size)}, {rounds} rounds", header, rows, found)
    for name, by_side in curves.items():
        report.plot(name, {side: c for side, c in by_side.items() if c}, "seconds")

    watched = min(500_000_000, options.largest)
    grown = {}
    for name, worker in workers.items():
        worker.call("prepare", size=watched)
        grown[name] = worker.call_watched("put_and_free", size=watched)[1]
    rows = [(n, size_text(v), f"{100 * v / watched:.1f} %") for n, v in grown.items()]
    report.table(
        f"Anonymous memory of the process that puts {size_text(watched)}, growth at the peak",
        ("side", "growth", "of the object"),
        rows,
        grown,
    )
    report.write()


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--full", action="store_true", help="also 1 GB")
    parser.add_argument(
        "--largest",
        type=int,
        default=1_000_000_000,
        metavar="BYTES",
        help="leave out what is larger",
    )


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        harness.main(compare, SIDES, __doc__, add_options)

"""Tasks of a Python program, done by workers in Rust.

The program puts a stack of images into shared memory. A task is a line of text to a worker: the
reference of the stack, the number of an image, the reference of a future. The worker
(`crates/proxystore/examples/image_worker.rs`) maps the stack, finds the bright spots of that image,
and sets the future; what it cannot do becomes the exception of the future. The program uses
the proxies of the futures as the arrays they stand for, and checks them against its own computation.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

try:
    import numpy as np
    from scipy import ndimage

    from proxystore_rs.connectors.shm import SharedMemoryConnector
    from proxystore_rs.proxy import Proxy, ProxyResolveError
    from proxystore_rs.store import Store
    from proxystore_rs.store.future import Future, FutureError
except ImportError as error:
    sys.exit(
        f"rust_worker: {error}\n"
        "The example needs proxystore_rs and the packages of requirements/demo.txt; `make demo` "
        "installs both."
    )

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
SMALLEST = 4  # pixels; smaller spots are noise


class Task(NamedTuple):
    """An image to analyse, and the future of its spots."""

    image: int
    spots: Future[NDArray[np.float64]]


class Worker:
    """A process in Rust, and the thread that gives it a task at a time."""

    def __init__(self, program: Path, stack: str, tasks: queue.SimpleQueue[Task | None]) -> None:
        self.stack, self.tasks = stack, tasks
        self.files: set[str] = set()
        self.process = subprocess.Popen(
            [program, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        """Send tasks and await their answers, until there are no more."""
        to, answers = self.process.stdin, self.process.stdout
        assert to is not None and answers is not None
        while (task := self.tasks.get()) is not None:
            result = Proxy.to_text(task.spots.proxy())
            with contextlib.suppress(BrokenPipeError):  # it ended: there will be no answer either
                print(self.stack, task.image, result, file=to, flush=True)
            answer = answers.readline()
            match answer.split(maxsplit=2):
                case ["done", _, *file]:
                    self.files.update(file or [""])
                case ["failed", _]:
                    pass  # the future says why
                case _:
                    error = RuntimeError(f"the worker ended. {answer}".strip())
                    task.spots.set_exception(error)
            print(".", end="", file=sys.stderr, flush=True)
        with contextlib.suppress(BrokenPipeError):
            to.close()  # so that it ends
        answers.close()
        self.process.wait()


@contextlib.contextmanager
def workers(
    count: int, program: Path, stack: str, tasks: queue.SimpleQueue[Task | None]
) -> Iterator[list[Worker]]:
    """Workers that take the tasks; at the end they do what is left, and end."""
    started = [Worker(program, stack, tasks) for _ in range(count)]
    try:
        yield started
    finally:
        for _ in started:
            tasks.put(None)
        for worker in started:
            worker.thread.join()


def build() -> Path:
    """Build the worker."""
    print("Building the worker (a minute the first time) ...", file=sys.stderr)
    command = ["cargo", "build", "--release", "--quiet", "-p", "proxystore"]
    command += ["--features", "ndarray", "--example", "image_worker"]
    try:
        subprocess.run(command, cwd=ROOT, check=True)
    except FileNotFoundError:
        sys.exit("rust_worker: there is no cargo here; install Rust, or name a worker by --worker")
    target = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    return ROOT / target / "release" / "examples" / "image_worker"


def observe(stack: NDArray[Any], seed: int = 1) -> None:
    """Fill a stack with noise and stars."""
    random = np.random.default_rng(seed)
    side = stack.shape[1]
    y, x = np.mgrid[-8:9, -8:9]
    for image in stack:
        light = random.normal(1000, 20, image.shape)
        for _ in range(max(1, side * side // 5000)):
            top, left = random.integers(0, side - 17, 2)
            peak, width = random.uniform(200, 20_000), random.uniform(1.5, 3)
            star = peak * np.exp(-(x**2 + y**2) / (2 * width**2))
            light[top : top + 17, left : left + 17] += star
        image[:] = light.clip(0, 65_535)


def find_spots(image: NDArray[Any]) -> NDArray[np.float64]:
    """What the worker does: a row of y, x, pixels, flux, background, threshold for each spot."""
    image = image.astype(np.float64)
    background = np.median(image)
    threshold = background + 5 * 1.4826 * np.median(np.abs(image - background))
    labels, count = ndimage.label(image > threshold)
    light = (image - background).ravel()
    places = np.indices(image.shape).reshape(2, -1)
    pixels, flux, y, x = (
        np.bincount(labels.ravel(), weights, count + 1)[1:]
        for weights in (None, light, light * places[0], light * places[1])
    )
    rest = (np.full(count, value) for value in (background, threshold))
    table = np.column_stack([y / flux, x / flux, pixels, flux, *rest])
    return table[pixels >= SMALLEST]


def main() -> None:
    """Run the tasks in Rust and in Python, and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--images", type=int, default=24, help="images of the stack (default: 24)")
    add("--size", type=int, default=1024, help="pixels of a side (default: 1024)")
    add("--dtype", choices=("uint16", "float32"), default="uint16", help="type of a pixel")
    add("--workers", type=int, default=2, help="processes in Rust (default: 2)")
    add("--worker", type=Path, metavar="PROGRAM", help="the worker; built if it is not given")
    options = parser.parse_args()
    if options.size < 32:
        parser.error(f"--size must be 32 at least, not {options.size}")
    program = options.worker or build()

    name = f"rust-worker-{os.getpid()}"
    with Store(name, SharedMemoryConnector(name), register=True) as store:
        stack = store.empty((options.images, options.size, options.size), options.dtype)
        observe(stack)
        reference = Proxy.to_text(store.proxy(stack))  # copies nothing: it lies in the channel

        # One task more than there are images, to see how it fails.
        futures: list[Future[Any]] = [store.future() for _ in range(options.images + 1)]
        tables = [future.proxy() for future in futures]
        tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        with workers(options.workers, program, reference, tasks) as pool:
            started = time.perf_counter()
            for image, future in enumerate(futures):
                tasks.put(Task(image, future))
            try:
                spots = sum(len(table) for table in tables[:-1])  # waits for each
            except ProxyResolveError as error:
                sys.exit(f"rust_worker: {error}")
            in_rust = time.perf_counter() - started
        print(file=sys.stderr)

        started = time.perf_counter()
        expected = [find_spots(image) for image in stack]
        in_python = time.perf_counter() - started
        for table, own in zip(tables, expected, strict=False):
            np.testing.assert_allclose(table, own, rtol=1e-9)

        flux = sum(table[:, 3].sum() for table in tables[:-1])
        files: set[str] = set().union(*(worker.files for worker in pool))
        copied = 0 if all(files) else stack.nbytes
        print(f"{options.images} images, {stack.nbytes / 1e6:.0f} MB of {options.dtype}:")
        print(f"  {spots} spots with a flux of {flux:.4e}, the same in Rust and in Python")
        print(f"  {copied} bytes of the stack copied: mapped from {', '.join(sorted(files))}")
        print(f"  {in_python / in_rust:.1f} times as fast as NumPy in one process")
        try:
            futures[-1].result()
        except FutureError as error:
            print(f"  image {options.images}: {error}")
        else:
            sys.exit("rust_worker: there was a result of an image that there is not")


if __name__ == "__main__":
    main()

"""An image pipeline in a process pool, by value and by proxy.

Six real pictures (they ship inside scikit-image) each become a stack of raw
detector exposures. Every stack passes through four stages:

    calibrate   raw counts to float32, bias and flat field removed
    align       the drift between exposures measured and undone
    combine     one image from the stack, outliers rejected, background removed
    measure     sources found and listed: position, area, flux

Each stage is a task of a process pool. First every argument and result goes
through the pool itself (by value). Then the same driver calls the same four
functions, and only proxies go through the pool: the arrays stay in shared
memory. The catalogues of both runs are compared, and must be equal.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import pickle
import statistics
import sys
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    import numpy as np
    import skimage
    from PIL import Image
    from scipy import ndimage

    from proxystore_rs.connectors.shm import SharedMemoryConnector
    from proxystore_rs.proxy import extract
    from proxystore_rs.store import Store
    from proxystore_rs.store.executor import ProxyType, StoreExecutor
    from proxystore_rs.store.utils import get_key
except ImportError as error:
    sys.exit(
        f"image_pipeline: {error}\n"
        "The demonstration needs proxystore_rs and the packages of requirements/demo.txt.\n"
        "`make demo` installs both and runs it."
    )

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

PICTURES = ("hubble_deep_field.jpg", "retina.jpg", "moon.png", "ihc.png", "cell.png", "coins.png")
BIAS = 1000
CATALOGUE = [("y", "f8"), ("x", "f8"), ("area", "i8"), ("flux", "f8")]


# --- The analysis. It takes and returns arrays, and knows nothing of proxies. ----------------


def calibrate(raw: NDArray[np.uint16], flat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Counts of the detector to relative brightness: bias and flat field removed."""
    stack = raw.astype(np.float32)
    stack -= BIAS
    stack /= flat
    return stack


def align(stack: NDArray[np.float32]) -> NDArray[np.float32]:
    """Undo the drift of the telescope, measured against the first exposure."""
    aligned = np.empty(stack.shape, stack.dtype)
    aligned[0] = stack[0]
    for index in range(1, len(stack)):
        for axis in (0, 1):  # a profile along each axis, correlated with that of exposure 0
            first, other = stack[0].mean(axis=1 - axis), stack[index].mean(axis=1 - axis)
            product = np.fft.rfft(first - first.mean()) * np.fft.rfft(other - other.mean()).conj()
            shift = int(np.fft.irfft(product, len(first)).argmax())
            aligned[index] = np.roll(stack[index] if axis == 0 else aligned[index], shift, axis)
    return aligned


def combine(stack: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of the stack without its extremes, minus a background measured in blocks."""
    image: NDArray[np.float32]
    image = (stack.sum(axis=0) - stack.max(axis=0) - stack.min(axis=0)) / (len(stack) - 2)
    block = 64
    rows, columns = image.shape[0] // block, image.shape[1] // block
    blocks = image.reshape(rows, block, columns, block).swapaxes(1, 2).reshape(rows, columns, -1)
    background = np.median(blocks, axis=2)
    smooth = ndimage.uniform_filter(background, 3)
    image -= np.repeat(np.repeat(smooth, block, axis=0), block, axis=1)
    return image


def measure(image: NDArray[np.float32]) -> NDArray[np.void]:
    """Every connected region well above the noise: position, area and flux."""
    noise = np.median(np.abs(image)) * 1.4826
    labels, count = ndimage.label(image > 5 * noise)
    if count == 0:
        return np.empty(0, CATALOGUE)
    area = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    flux = np.bincount(labels.ravel(), image.ravel(), count + 1)[1:]
    centres = np.array(ndimage.center_of_mass(image, labels, np.arange(1, count + 1)))
    found = np.empty(count, CATALOGUE)
    found["y"], found["x"], found["area"], found["flux"] = *centres.T, area, flux
    return found[found["area"] >= 9]


# --- The driver. `pool` is any executor; it decides how arguments and results travel. --------


def analyse(
    pool: Executor, stacks: Sequence[Any], flat: Any, done: Callable[[], None]
) -> list[Any]:
    """Send every stack through the four stages and return the catalogues."""

    def finished(future: Future[Any]) -> Any:
        result = future.result()
        done()
        return result

    calibrated = [pool.submit(calibrate, stack, flat) for stack in stacks]
    aligned = [pool.submit(align, finished(stack)) for stack in calibrated]
    combined = [pool.submit(combine, finished(stack)) for stack in aligned]
    measured = [pool.submit(measure, finished(image)) for image in combined]
    return [finished(catalogue) for catalogue in measured]


def by_proxy_in(pool: Executor, store: Store[Any]) -> StoreExecutor:
    """The same pool, whose tasks receive and return proxies of arrays.

    An argument is freed when its task is done. A result belongs to whoever has its proxy: here the
    task that it is passed on to.
    """
    return StoreExecutor(pool, store, ProxyType(np.ndarray), close_store=False)


class Counting(Executor):
    """Runs tasks at once, here, and counts the bytes a pool would move for them."""

    def __init__(self) -> None:
        self.bytes = 0

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        function, args, kwargs = self.moved((function, args, kwargs))
        future.set_result(self.moved(function(*args, **kwargs)))
        return future

    def moved(self, thing: Any) -> Any:
        data = pickle.dumps(thing)
        self.bytes += len(data)
        return pickle.loads(data)


# --- The observations. ------------------------------------------------------------------------


def observe(name: str, flat: NDArray[np.float32], exposures: int) -> NDArray[np.uint16]:
    """A stack of raw exposures of one real picture: drift, vignetting, noise, cosmic rays."""
    size = flat.shape[0]
    with Image.open(Path(skimage.__file__).parent / "data" / name) as picture:
        grey = np.asarray(picture.convert("L"), np.float32)[:size, :size]
    scene = np.pad(grey, [(0, size - length) for length in grey.shape], mode="symmetric")
    random = np.random.default_rng(sum(name.encode()))
    stack = np.empty((exposures, size, size), np.uint16)
    for index, exposure in enumerate(stack):
        drift = (0, 0) if index == 0 else tuple(random.integers(-12, 13, 2))
        light = np.roll(scene, drift, axis=(0, 1)) * 40 * flat
        light += random.standard_normal(scene.shape, np.float32) * 30 + BIAS
        hits = random.integers(0, size, (2, 200))
        light[hits[0], hits[1]] += 20000
        exposure[:] = light.clip(0, 65535)
    return stack


def vignette(size: int) -> NDArray[np.float32]:
    """The flat field: how much light reaches each pixel."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    flat: NDArray[np.float32] = (1 - 0.15 * (x * x + y * y)).astype(np.float32)
    return flat


# --- Telling what happens. --------------------------------------------------------------------


class Progress:
    """One line that fills up on a terminal, one line per step elsewhere."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total, self.count = title, total, 0
        self.live = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        if not self.live:
            print(f"{self.title} ...", file=sys.stderr, flush=True)
        self.show()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            print(file=sys.stderr)

    def step(self) -> None:
        self.count += 1
        self.show()

    def show(self) -> None:
        if self.live:
            filled = 30 * self.count // self.total
            bar = "#" * filled + "." * (30 - filled)
            print(f"\r{self.title:44} [{bar}] {self.count}/{self.total}", end="", file=sys.stderr)
            sys.stderr.flush()


def size_text(count: float) -> str:
    """Bytes for people: 1234567 is '1.2 MB'."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def time_text(seconds: float) -> str:
    """Seconds for people: 0.00123 is '1.23 ms'."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns that line up."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            c.ljust(w) if i == 0 else c.rjust(w)
            for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  " + "   ".join(padded)

    return "\n".join([line(header), line(["-" * width for width in widths]), *map(line, rows)])


# --- The two experiments. ---------------------------------------------------------------------


@contextlib.contextmanager
def workers(count: int, start_method: str) -> Iterator[ProcessPoolExecutor]:
    """A process pool whose workers are up and have imported what they need."""
    context = multiprocessing.get_context(start_method)
    with ProcessPoolExecutor(count, mp_context=context) as pool:
        for future in [pool.submit(time.sleep, 0.05) for _ in range(2 * count)]:
            future.result()
        pool.submit(len, b"").result()
        yield pool


def pipeline(pool: Executor, store: Store[Any], options: argparse.Namespace) -> list[Any]:
    """Run the analysis both ways, print the comparison, return the combined catalogues."""
    flat = vignette(options.size)
    stacks = []
    with Progress("Reading pictures, making exposures", len(PICTURES)) as progress:
        for name in PICTURES:
            stacks.append(observe(name, flat, options.exposures))
            progress.step()

    def by_value(pool: Executor, done: Callable[[], None]) -> list[Any]:
        return analyse(pool, stacks, flat, done)

    def by_proxy(pool: Executor, done: Callable[[], None]) -> list[Any]:
        shared = store.proxy(flat)  # one object for all tasks
        found = analyse(by_proxy_in(pool, store), stacks, shared, done)
        store.evict(get_key(shared))
        return [extract(catalogue) for catalogue in found]

    variants = {"by value": by_value, "by proxy": by_proxy}
    results: dict[str, list[Any]] = {}
    times: dict[str, list[float]] = {name: [] for name in variants}
    moved: dict[str, int] = {}
    tasks = 4 * len(stacks)
    with Progress("Counting bytes (untimed)", 2 * tasks) as progress:
        for name, variant in variants.items():
            counting = Counting()
            results[f"{name}, one process"] = variant(counting, progress.step)
            moved[name] = counting.bytes
    title = f"Running the pipeline, {options.repeat} times each way"
    with Progress(title, 2 * options.repeat * tasks) as progress:
        for _ in range(options.repeat):
            for name, variant in variants.items():
                start = time.perf_counter()
                results[name] = variant(pool, progress.step)
                times[name].append(time.perf_counter() - start)

    reference, *others = results.values()
    for name, found in zip(list(results)[1:], others, strict=True):
        for picture, mine, theirs in zip(PICTURES, reference, found, strict=True):
            if not np.array_equal(mine, theirs):
                sys.exit(f"image_pipeline: the catalogue of {picture} differs ({name})")

    median = {name: statistics.median(values) for name, values in times.items()}
    rows = [
        (
            name,
            size_text(moved[name]),
            time_text(median[name]),
            f"{median['by value'] / median[name]:.1f}x",
        )
        for name in variants
    ]
    print(
        f"\n{len(stacks)} stacks of {options.exposures} exposures "
        f"({size_text(stacks[0].nbytes)} raw, {size_text(2 * stacks[0].nbytes)} calibrated), "
        f"{tasks} tasks, {options.workers} workers ({options.start_method}), "
        f"median of {options.repeat} runs:\n"
    )
    print(table(("variant", "through the pool", "time", "speed-up"), rows))
    sources = sum(len(catalogue) for catalogue in reference)
    print(f"\nBoth ways find the same {sources} sources, exactly.\n")
    return reference


def add_one(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The task of the second experiment: reads its whole input, makes an output as large."""
    return image + np.float32(1)


def round_trips(pool: Executor, store: Store[Any], options: argparse.Namespace) -> Path:
    """Time one task out and back at many sizes, both ways, and draw it."""
    sizes = [int(10 ** (4 + step / 2)) for step in range(8)] + [64_000_000]
    sizes = [size for size in sizes if size <= options.largest]
    shared = by_proxy_in(pool, store)

    def by_value(array: NDArray[np.float32]) -> float:
        return float(pool.submit(add_one, array).result()[-1])

    def by_proxy(array: NDArray[np.float32]) -> float:
        return float(shared.submit(add_one, array).result()[-1])

    variants = {"by value": by_value, "by proxy": by_proxy}
    medians: dict[str, list[float]] = {name: [] for name in variants}
    with Progress("Timing round trips, 10 kB to 64 MB", len(sizes)) as progress:
        for size in sizes:
            array = np.ones(size // 4, np.float32)
            times: dict[str, list[float]] = {name: [] for name in variants}
            repeats = 25 if size < 1_000_000 else 8 if size < 10_000_000 else 3
            for turn in range(repeats + 1):
                for name, variant in variants.items():
                    start = time.perf_counter()
                    last = variant(array)
                    if turn:  # the first one warms up
                        times[name].append(time.perf_counter() - start)
                    assert last == 2
            for name in variants:
                medians[name].append(statistics.median(times[name]))
            progress.step()

    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for name, marker in zip(variants, "os", strict=True):
        axes.loglog(sizes, [value * 1e3 for value in medians[name]], marker=marker, label=name)
    axes.set_xlabel("array, bytes (sent and returned)")
    axes.set_ylabel("round trip, ms (median)")
    axes.set_title("One task in a process pool: send, add one, return, read")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend()
    path: Path = options.output / "round-trip.png"
    figure.savefig(path, dpi=150)
    pyplot.close(figure)

    rows = [
        (size_text(size), time_text(value), time_text(proxy), f"{value / proxy:.1f}x")
        for size, value, proxy in zip(sizes, medians["by value"], medians["by proxy"], strict=True)
    ]
    print("\nOne task, out and back:\n")
    print(table(("array", "by value", "by proxy", "ratio"), rows))
    return path


def main() -> int:
    """Parse the options and run both experiments."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  %(prog)s                          all of it, in a few seconds\n"
        "  %(prog)s --start-method spawn     workers that inherit nothing\n"
        "  %(prog)s --exposures 16 --repeat 5\n"
        "                                    stacks twice as large, a steadier median\n"
        "  %(prog)s --no-plot                the pipeline only\n",
    )
    add = parser.add_argument
    add("--workers", type=int, default=2, metavar="N", help="processes in the pool (default: 2)")
    add(
        "--start-method",
        choices=multiprocessing.get_all_start_methods(),
        default="fork",
        help="how the workers are started (default: fork)",
    )
    add("--exposures", type=int, default=8, metavar="N", help="per stack (default: 8)")
    add(
        "--size",
        type=int,
        default=1024,
        metavar="PIXELS",
        help="edge, a multiple of 64 (default: 1024)",
    )
    add("--repeat", type=int, default=2, metavar="N", help="timed runs each way (default: 2)")
    add("--largest", type=int, default=64_000_000, metavar="BYTES", help="largest round trip")
    add("--no-plot", action="store_true", help="leave out the round trips and their picture")
    add(
        "--output",
        type=Path,
        default=Path("demo-output"),
        metavar="DIR",
        help="where the picture goes (default: demo-output)",
    )
    options = parser.parse_args()
    if options.size < 64 or options.size % 64:
        parser.error(f"--size must be a multiple of 64, not {options.size}")
    if options.exposures < 3:
        parser.error("--exposures must be at least 3: combining drops the two extremes")
    if min(options.workers, options.repeat) < 1:
        parser.error("--workers and --repeat must be at least 1")
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--output: {error}")

    name = f"image-pipeline-{os.getpid()}"
    with (
        workers(options.workers, options.start_method) as pool,
        Store(name, SharedMemoryConnector(name=name), register=True) as store,
    ):
        pipeline(pool, store, options)
        if not options.no_plot:
            path = round_trips(pool, store, options)
            print(f"\nThe picture of it: {path}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nimage_pipeline: interrupted")

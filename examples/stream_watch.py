"""A detector that sends frames, two analyses that work on them, and a screen that tells how it goes.

The detector is a process that takes a frame every few milliseconds, stores it in shared memory, and
publishes an event of it. Two groups of consumers get every frame:

    spots   counts the bright spots of each frame, which is quick
    focus   measures how sharp it is, which takes a while

Each has a dispatcher here, in threads of one process, and worker processes of its own. The frames
do not come by this process: dispatchers pass on references. A frame is freed when both groups are
done with it. What waits for the slower one is bounded, and then the detector waits as well.

On a terminal the screen is live; elsewhere there is a line per group and second.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from proxystore_rs.store import open_store
from proxystore_rs.stream import StreamConsumer, StreamProducer
from proxystore_rs.stream.brokers import open_broker
from proxystore_rs.stream.dispatch import Dispatcher

THRESHOLD = 50


# --- The detector, a process of its own. -------------------------------------------------------


def expose(random: np.random.Generator, size: int, spots: int) -> Any:
    """A frame of noise, with spots of 3 x 3 pixels that do not touch."""
    frame = random.standard_normal((size, size), np.float32)
    cells = random.choice((size // 8) ** 2, spots, replace=False)
    for row, column in zip(*divmod(cells * 8, size), strict=True):
        frame[row * 8 + 2 : row * 8 + 5, column + 2 : column + 5] += 100
    return frame


def detect(channel: str, sent: Any, options: argparse.Namespace) -> None:
    """Send frames until there are enough."""
    random = np.random.default_rng(1)
    producer: StreamProducer[Any] = StreamProducer(
        open_broker(channel).publisher(),
        default_store=open_store(channel),
        consumers=[name for name, _ in GROUPS],
        max_bytes=options.most * options.size**2 * 4,
        timeout=60,
    )
    with producer:
        for number in range(options.frames):
            spots = int(random.integers(1, 10))
            frame = expose(random, options.size, spots)
            producer.send("frames", frame, metadata={"spots": spots, "bytes": frame.nbytes})
            with sent.get_lock():
                sent.value = number + 1
            time.sleep(1 / options.rate)
        producer.close_topics("frames")


# --- The analyses. They run in workers, and know nothing of streams. ---------------------------


def count_spots(frame: Any) -> int:
    """How many bright spots there are."""
    return int((frame > THRESHOLD).sum()) // 9


def measure_focus(frame: Any) -> float:
    """How sharp the frame is: a stand-in for something that takes long."""
    time.sleep(0.05)
    return float(np.abs(np.diff(frame)).mean())


GROUPS = (("spots", count_spots), ("focus", measure_focus))


# --- The groups, each with a dispatcher in a thread. -------------------------------------------


class Group:
    """An analysis of all frames."""

    def __init__(
        self, name: str, function: Any, pool: ProcessPoolExecutor, channel: str, most: int
    ) -> None:
        subscriber = open_broker(channel).subscriber("frames", group=name)
        self.name, self.bytes, self.wrong = name, 0, 0
        self.consumer: StreamConsumer[Any] = StreamConsumer(
            subscriber, acknowledge="manual", timeout=60
        )
        self.dispatcher = Dispatcher(
            self.consumer, pool, function, max_in_flight=most, on_result=self.note
        )
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        try:
            self.dispatcher.run()
        except Exception as error:  # the main thread tells it
            self.error = error

    def note(self, item: Any, result: Any) -> None:
        """Keep the books of a frame that is done."""
        self.bytes += item.metadata["bytes"]
        self.wrong += self.name == "spots" and result != item.metadata["spots"]

    def line(self, sent: int, seconds: float) -> str:
        counts = self.dispatcher.counts
        return (
            f"{self.name:8} {counts.done:5} done  {counts.in_flight:3} in flight  "
            f"{sent - counts.items:4} behind  {counts.done / seconds:6.1f}/s  "
            f"{self.bytes / seconds / 1e6:7.1f} MB/s"
        )


class Screen:
    """Lines that are written over and over on a terminal, and once a second elsewhere."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self.every = 0.1 if self.live else 1.0
        self.lines = 0

    def show(self, lines: list[str]) -> None:
        up = f"\x1b[{self.lines}A" if self.live and self.lines else ""
        end = "\x1b[K\n" if self.live else "\n"
        print(up + "".join(line + end for line in lines), end="", file=sys.stderr, flush=True)
        self.lines = len(lines)


def watch(groups: list[Group], sent: Any, options: argparse.Namespace) -> None:
    """Show how it goes until all groups are done."""
    screen, start = Screen(), time.monotonic()

    def show() -> None:
        nonlocal start
        frames = sent.value
        if frames == 0:
            start = time.monotonic()
        seconds = max(time.monotonic() - start, 1e-3)
        lines = [f"detector {frames:5} of {options.frames} frames in {seconds:.1f} s"]
        screen.show(lines + [group.line(frames, seconds) for group in groups])

    for group in groups:
        while group.thread.is_alive():
            group.thread.join(screen.every)
            if group.thread.is_alive():
                show()
    show()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=100, help="how many (default: %(default)s)")
    parser.add_argument(
        "--rate", type=float, default=40, help="frames per second, at most (default: %(default)s)"
    )
    parser.add_argument(
        "--size", type=int, default=512, help="pixels of an edge (default: %(default)s)"
    )
    parser.add_argument(
        "--workers", type=int, default=2, help="processes of a group (default: %(default)s)"
    )
    parser.add_argument(
        "--most", type=int, default=32, help="frames that may wait (default: %(default)s)"
    )
    options = parser.parse_args()
    if options.size < 32 or options.size % 8:
        parser.error(f"--size must be a multiple of 8, and 32 or more, not {options.size}")
    return options


def main() -> None:
    options = parse()
    channel = f"shm://watch-{os.getpid()}"
    context = multiprocessing.get_context("spawn")
    sent = context.Value("q", 0)
    detector = context.Process(target=detect, args=(channel, sent, options))
    with contextlib.ExitStack() as stack:
        store = open_store(channel)
        stack.callback(store.close)
        groups = []
        for name, function in GROUPS:
            pool = stack.enter_context(ProcessPoolExecutor(options.workers, mp_context=context))
            groups.append(Group(name, function, pool, channel, 2 * options.workers))
            stack.callback(groups[-1].consumer.close)
        detector.start()
        watch(groups, sent, options)
        detector.join()
    for group in groups:
        if group.error is not None:
            sys.exit(f"stream_watch: {group.name}: {group.error}")
        if group.wrong or group.dispatcher.counts.done != options.frames:
            sys.exit(f"stream_watch: {group.name} missed frames, or spots of them")
    print(f"Both groups have seen all {options.frames} frames.")


if __name__ == "__main__":
    main()

"""What one operation on a resolved proxy costs, in ns, and times the bare object.

Runs every implementation that is importable, interleaved, and reports medians.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from harness import Report, versions

# The Python library is installed in an environment of its own; here its code is borrowed, so that
# all sides are timed in one process. What this environment has comes first.
sys.path += map(str, Path(".venvs/upstream/lib").glob("python*/site-packages"))


class Target:
    attribute = 1

    def __init__(self) -> None:
        self.x = 1

    def method(self) -> None:
        pass


def function() -> None:
    pass


OPERATIONS: dict[str, tuple[Any, str]] = {
    "attribute": (Target(), "p.x"),
    "set attribute": (Target(), "p.x = 1"),
    "method call": (Target(), "p.method()"),
    "`p + 1`": (5, "p + 1"),
    "`1 + p`": (5, "1 + p"),
    "`p == 5`": (5, "p == 5"),
    "`p[i]`": ([1, 2, 3], "p[1]"),
    "`p[i] = v`": ([1, 2, 3], "p[1] = 2"),
    "`k in p`": ({1: 2}, "1 in p"),
    "`len(p)`": ([1, 2, 3], "len(p)"),
    "`bool(p)`": ([1, 2, 3], "not p"),
    "`iter(p)`": ((1, 2, 3), "iter(p)"),
    "`isinstance`": ([1], "isinstance(p, list)"),
    "call": (function, "p()"),
    "`str(p)`": ("text", "str(p)"),
    "`hash(str)`": ("text", "hash(p)"),
    "`np.add(p, 1)`": (np.ones(3), "np.add(p, 1)"),
    "`np.sum(p)`": (np.ones(3), "np.sum(p)"),
    "create": (None, "P(f)"),
    "create + resolve": (5, "P(f) + 1"),
}


def implementations() -> dict[str, Callable[[Any], Any]]:
    found: dict[str, Callable[[Any], Any]] = {"bare": lambda target: target}
    try:
        from proxystore_rs.proxy import Proxy as Ours

        found["ours"] = lambda target: Ours(lambda: target)
    except ImportError:
        pass
    try:
        from proxystore.proxy import Proxy as Upstream

        found["upstream"] = lambda target: Upstream(lambda: target)
    except ImportError:
        pass
    try:
        from lazy_object_proxy import Proxy as Lazy

        found["lazy-object-proxy"] = lambda target: Lazy(lambda: target)
    except ImportError:
        pass
    try:
        from wrapt import ObjectProxy

        found["wrapt"] = ObjectProxy
    except ImportError:
        pass
    return found


def timer(make: Callable[[Any], Any], name: str, target: Any, statement: str) -> Any:
    def factory():
        return target

    if statement.startswith("P("):
        if name == "bare":

            def kind(f):
                return f() if target is not None else f
        elif name == "wrapt":

            def kind(f):
                return make(f())
        else:
            kind = type(make(target))
        names = {"P": kind, "f": factory}
    else:
        p = make(target)
        str(p)
        names = {"p": p, "np": np}
    try:
        result = timeit.Timer(statement, globals=names)
        result.timeit(10)
    except (TypeError, AttributeError):
        return None
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", default="bench/results", help="folder (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=15, help="rounds (default: %(default)s)")
    options = parser.parse_args()

    found = implementations()
    nanoseconds: dict[str, dict[str, float | None]] = {}
    table: list[list[str]] = []
    for operation, (target, statement) in OPERATIONS.items():
        timers = {name: timer(make, name, target, statement) for name, make in found.items()}
        timers = {name: each for name, each in timers.items() if each is not None}
        counts = {
            name: max(200, int(0.004 / (each.timeit(200) / 200))) for name, each in timers.items()
        }
        samples: dict[str, list[float]] = {name: [] for name in timers}
        for _ in range(options.repeats):
            for name, count in counts.items():
                samples[name].append(timers[name].timeit(count) / count * 1e9)
        row = {
            name: statistics.median(samples[name]) if name in samples else None for name in found
        }
        bare = row["bare"] or 1.0
        nanoseconds[operation] = row
        table.append(
            [
                operation,
                *(
                    "-" if value is None else f"{value:.1f} ({value / bare:.1f}x)"
                    for value in row.values()
                ),
            ]
        )
    report = Report(
        "proxy_ops", "Operations on a resolved proxy, ns (times the bare object)", options
    )
    report.data["versions"] = {
        "all": versions(("proxystore-rs", "proxystore", "lazy-object-proxy", "wrapt", "numpy"))
    }
    report.table("Nanoseconds per operation", ["operation", *found], table, nanoseconds)
    report.write()


if __name__ == "__main__":
    main()

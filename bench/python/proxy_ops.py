"""What one operation on a resolved proxy costs, in ns, and times the bare object.

Runs every implementation that is importable, interleaved, and prints the median of the repeats as a
Markdown table. Usage: python bench/python/proxy_ops.py [--json FILE] [--repeats N]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
import timeit
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np


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

        found["proxystore_rs"] = lambda target: Ours(lambda: target)
    except ImportError:
        pass
    try:
        from proxystore.proxy import Proxy as Upstream

        found["proxystore"] = lambda target: Upstream(lambda: target)
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()

    found = implementations()
    rows: dict[str, dict[str, float | None]] = {}
    for operation, (target, statement) in OPERATIONS.items():
        timers = {name: timer(make, name, target, statement) for name, make in found.items()}
        counts = {}
        for name, each in timers.items():
            if each is not None:
                once = each.timeit(200) / 200
                counts[name] = max(200, int(0.004 / once))
        samples: dict[str, list[float]] = {name: [] for name in counts}
        for _ in range(options.repeats):
            for name, count in counts.items():
                samples[name].append(timers[name].timeit(count) / count * 1e9)
        rows[operation] = {
            name: statistics.median(samples[name]) if name in samples else None for name in found
        }

    print(f"Python {platform.python_version()}, ns, median of {options.repeats} (times bare)\n")
    print("| operation | " + " | ".join(found) + " |")
    print("| --- " * (len(found) + 1) + "|")
    for operation, row in rows.items():
        bare = row["bare"] or 1.0
        cells = []
        for name, value in row.items():
            if value is None:
                cells.append("-")
            elif name == "bare":
                cells.append(f"{value:.1f}")
            else:
                cells.append(f"{value:.1f} ({value / bare:.1f}x)")
        print(f"| {operation} | " + " | ".join(cells) + " |")

    if options.json:
        distributions = ("proxystore-rs", "proxystore", "lazy-object-proxy", "wrapt", "numpy")
        versions = {}
        for name in distributions:
            try:
                versions[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        report = {
            "benchmark": "proxy_ops",
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "python": sys.version.split()[0],
            "machine": platform.machine(),
            "versions": versions,
            "repeats": options.repeats,
            "nanoseconds": rows,
        }
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    main()

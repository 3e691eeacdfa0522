"""What every comparison shares: sides, interleaved rounds, medians, tables, plots.

A *side* is one way of doing the same thing. It lives in a process of its own, possibly in a
virtual environment of its own, and answers calls that arrive as lines of JSON. The comparison
asks all sides in turn, round after round, so that what the machine does meanwhile meets all
of them alike. What is reported is the median of a side's rounds, next to the other sides'.

A topic is a file that defines its sides and ends with

    if __name__ == "__main__":
        harness.main(compare, SIDES)

Run as a program it compares; run with `--worker NAME` it becomes the side of that name.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results"


@dataclass(frozen=True)
class Side:
    """One way of doing it: the class that answers calls, its arguments, its environment."""

    make: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    environment: str = "ours"  # "ours", or the name of a folder under .venvs/
    distributions: tuple[str, ...] = ("numpy",)  # whose versions are reported
    by_path: bool = False  # our package and these programs are found by path, also by its children


def interpreter(environment: str) -> str:
    """The interpreter of an environment; BENCH_PYTHON_<NAME> names another one."""
    given = os.environ.get(f"BENCH_PYTHON_{environment.upper()}")
    if given:
        return given
    if environment == "ours":
        return sys.executable
    path = ROOT / ".venvs" / environment / "bin" / "python"
    if not path.exists():
        sys.exit(f"There is no {path.relative_to(ROOT)}. `make bench` creates it.")
    return str(path)


class WorkerError(Exception):
    """A call failed in a worker; the text is its traceback."""


class Worker:
    """A process in which a side answers calls."""

    def __init__(self, topic: Path, name: str, side: Side) -> None:
        self.name = name
        command = [interpreter(side.environment), str(topic), "--worker", name]
        paths = [str(ROOT / "python"), str(topic.parent), os.environ.get("PYTHONPATH")]
        variables = {"PYTHONPATH": os.pathsep.join(filter(None, paths))} if side.by_path else {}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | variables,
        )

    def call(self, method: str, **arguments: Any) -> Any:
        """Call a method of the side; the answer is plain data."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps([method, arguments]) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerError(f"{self.name}: the process ended ({self.process.wait()})")
        kind, value = json.loads(line)
        if kind == "error":
            raise WorkerError(f"{self.name}.{method} failed:\n{value}")
        return value

    def anonymous_memory(self) -> int:
        """Bytes of anonymous memory the process holds now (RssAnon)."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(
            int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("RssAnon")
        )

    def call_watched(self, method: str, **arguments: Any) -> tuple[Any, int]:
        """Call, and also return by how much anonymous memory grew at its peak."""
        before = peak = self.anonymous_memory()
        over = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not over.is_set():
                peak = max(peak, self.anonymous_memory())
                time.sleep(0.0005)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            answer = self.call(method, **arguments)
        finally:
            over.set()
            watcher.join()
        return answer, max(peak, self.anonymous_memory()) - before

    def close(self) -> None:
        """End the process in an orderly way."""
        if self.process.poll() is None:
            try:
                self.call("close")
                assert self.process.stdin is not None
                self.process.stdin.close()
            except WorkerError as error:
                print(error, file=sys.stderr)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def serve(side: Side) -> None:
    """Be a worker: answer calls until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the side prints must not mix with the answers
    subject: Any = None
    for line in sys.stdin:
        method, arguments = json.loads(line)
        try:
            if method == "versions":
                value: Any = versions(side.distributions)
            else:
                if subject is None:
                    subject = side.make(*side.arguments)
                function = getattr(subject, method, None)
                value = None if function is None and method == "close" else function(**arguments)
            answer = ["ok", value]
        except Exception:
            answer = ["error", traceback.format_exc()]
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def versions(distributions: Sequence[str]) -> dict[str, str]:
    """Versions of Python and of the distributions, as installed here."""
    found = {"python": platform.python_version()}
    for name in distributions:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def interleave(
    workers: Mapping[str, Worker], rounds: int, call: Callable[[Worker], Any], *, warm: int = 1
) -> dict[str, list[Any]]:
    """Ask every worker once per round, starting with another one each time."""
    names = list(workers)
    answers: dict[str, list[Any]] = {name: [] for name in names}
    for number in range(warm + rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            answer = call(workers[name])
            if number >= warm:
                answers[name].append(answer)
    return answers


def medians(samples: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of every field of the samples."""
    return {key: statistics.median(sample[key] for sample in samples) for key in samples[0]}


def size_text(count: float) -> str:
    """Bytes for people, in decimal units."""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def time_text(seconds: float | None) -> str:
    """Seconds for people."""
    if seconds is None:
        return "-"
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def ratio_text(one: float | None, other: float | None) -> str:
    """How many times `one` is `other`."""
    if one is None or other is None or not other:
        return "-"
    return f"{one / other:.3g}x"


class Report:
    """Collects tables, numbers and curves, and writes them as Markdown, JSON and a picture."""

    def __init__(self, topic: str, title: str, options: argparse.Namespace) -> None:
        self.topic, self.title, self.folder = topic, title, Path(options.output)
        self.parts: list[str] = []
        self.data: dict[str, Any] = {
            "machine": machine(),
            "options": {
                key: str(value)
                for key, value in vars(options).items()
                if key not in ("output", "worker", "sides")
            },
        }
        self.curves: list[dict[str, Any]] = []

    def versions(self, workers: Mapping[str, Worker]) -> None:
        """Record what every side runs on."""
        self.data["versions"] = {name: w.call("versions") for name, w in workers.items()}

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self.parts.append(text)
        print(f"\n{text}", flush=True)

    def table(
        self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]], data: Any
    ) -> None:
        """Add a table, and its numbers under the same title."""
        lines = [f"## {title}", "", "| " + " | ".join(header) + " |"]
        lines.append("| --- |" + " ---: |" * (len(header) - 1))
        lines += ["| " + " | ".join(row) + " |" for row in rows]
        self.data[title] = data
        self.text("\n".join(lines))

    def plot(
        self,
        title: str,
        curves: Mapping[str, Mapping[Any, float]],
        ylabel: str,
        *,
        xlabel: str = "bytes",
        linear: bool = False,
    ) -> None:
        """Add a plot, log-log unless it is linear: one curve of size and value per side."""
        found = {"title": title, "curves": curves, "ylabel": ylabel}
        self.curves.append(found | {"xlabel": xlabel, "linear": linear})

    def write(self) -> None:
        """Write everything to the results folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [f"# {self.title}", ""]
        facts = self.data["machine"]
        lines.append(f"{facts['cpu']}, {facts['cores']} cores, {facts['system']}, {facts['date']}.")
        lines.append("Medians of interleaved rounds; options: " + option_text(self.data["options"]))
        lines.append("")
        for name, found in self.data.get("versions", {}).items():
            lines.append(f"- {name}: " + ", ".join(f"{k} {v}" for k, v in found.items()))
        text = "\n".join(lines) + "\n\n" + "\n\n".join(self.parts) + "\n"
        if self.curves:
            self.draw(self.folder / f"{self.topic}.png")
            text += f"\n![{self.title}]({self.topic}.png)\n"
        (self.folder / f"{self.topic}.md").write_text(text)
        numbers = json.dumps(self.data, indent=1, sort_keys=True)
        (self.folder / f"{self.topic}.json").write_text(numbers + "\n")
        print(f"\nWritten: {self.folder / self.topic}.md, .json", flush=True)

    def draw(self, path: Path) -> None:
        """Draw all plots side by side."""
        import matplotlib

        matplotlib.use("agg")
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(
            1,
            len(self.curves),
            figsize=(5.5 * len(self.curves), 4.2),
            layout="constrained",
            squeeze=False,
        )
        names = list(dict.fromkeys(name for plot in self.curves for name in plot["curves"]))
        for axis, plot in zip(axes[0], self.curves, strict=True):
            for name, curve in plot["curves"].items():
                sizes, index = sorted(curve), names.index(name)
                style = {"color": f"C{index}"}
                if len(sizes) < 50:
                    style["marker"] = "osd^vPX*<>"[index % 10]
                draw = axis.plot if plot["linear"] else axis.loglog
                draw(sizes, [curve[size] for size in sizes], label=name, **style)
            axis.set_title(plot["title"])
            axis.set_xlabel(plot["xlabel"])
            axis.set_ylabel(plot["ylabel"])
            axis.grid(visible=True, which="both", alpha=0.25)
            if plot["curves"]:
                axis.legend(fontsize="small")
        figure.savefig(path, dpi=130)
        pyplot.close(figure)


def option_text(options: Mapping[str, str]) -> str:
    """The options that say how much was measured."""
    return ", ".join(f"{key} {value}" for key, value in options.items()) + "."


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    cpu = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


def start(topic: Path, sides: Mapping[str, Side], options: argparse.Namespace) -> dict[str, Worker]:
    """Start a worker per side that was asked for."""
    return {name: Worker(topic, name, sides[name]) for name in options.sides}


class _Quick(argparse.Action):
    """Sets several options at once."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, *_: Any) -> None:
        for name, value in self.const.items():
            setattr(namespace, name, value)


def add_quick(parser: argparse.ArgumentParser, **options: Any) -> None:
    """Add `--quick`, which sets the options: enough to see that the topic runs."""
    text = option_text({key: str(value) for key, value in options.items()}).rstrip(".")
    parser.add_argument(
        "--quick",
        action=_Quick,
        nargs=0,
        const=options,
        default=argparse.SUPPRESS,
        help=f"only see that it runs: {text}",
    )


def main(
    compare: Callable[[Mapping[str, Worker], argparse.Namespace], None],
    sides: Mapping[str, Side],
    description: str | None,
    add_options: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
    rounds: int = 9,
) -> None:
    """Compare the sides, or be one of them."""
    topic = Path(sys.argv[0]).resolve()
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worker", metavar="NAME", help=argparse.SUPPRESS)
    parser.add_argument(
        "--rounds", type=int, default=rounds, help="rounds per median (default: %(default)s)"
    )
    parser.add_argument(
        "--sides", nargs="+", default=list(sides), metavar="SIDE", help="which (default: all)"
    )
    parser.add_argument("--output", default=str(RESULTS), help="folder (default: bench/results)")
    add_options(parser)
    options = parser.parse_args()
    if options.worker:
        serve(sides[options.worker])
        return
    unknown = set(options.sides) - set(sides)
    if unknown:
        parser.error(f"no such side: {sorted(unknown)} (there are: {list(sides)})")
    workers = start(topic, sides, options)
    try:
        compare(workers, options)
    except WorkerError as error:
        sys.exit(str(error))
    finally:
        for worker in workers.values():
            worker.close()

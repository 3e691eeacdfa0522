"""Helpers."""

from __future__ import annotations

import asyncio
import io
import logging
import math
import os
import threading
import tomllib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from proxystore_rs import utils
from proxystore_rs.store.config import ConnectorConfig
from proxystore_rs.utils._toml import to_toml
from proxystore_rs.utils.config import dump, dumps, load, loads
from proxystore_rs.utils.counter import AtomicCounter
from proxystore_rs.utils.data import bytes_to_readable, chunk_bytes, readable_to_bytes
from proxystore_rs.utils.environment import home_dir, hostname
from proxystore_rs.utils.imports import get_object_path, import_from_path
from proxystore_rs.utils.tasks import SafeTaskExitError, spawn_guarded_background_task
from proxystore_rs.utils.timer import Timer


def test_package_offers_the_common_ones() -> None:
    assert utils.home_dir is home_dir
    assert all(hasattr(utils, name) for name in utils.__all__)


def test_chunks() -> None:
    assert list(chunk_bytes(b"abcdefg", 3)) == [b"abc", b"def", b"g"]
    assert list(chunk_bytes(b"", 3)) == []
    with pytest.raises(ValueError, match="positive"):
        list(chunk_bytes(b"a", 0))


@pytest.mark.parametrize(
    ("size", "precision", "text"),
    [
        (0, 3, "0 B"),
        (999, 3, "999 B"),
        (1000, 3, "1 KB"),
        (1001, 3, "1.001 KB"),
        (1500, 1, "1.5 KB"),
        (1234567, 3, "1.235 MB"),
        (123456, 0, "123 KB"),
        (999999, 0, "1000 KB"),
        (999_999_999, 2, "1000 MB"),
        (10**12, 3, "1 TB"),
        (10**15, 3, "1000 TB"),
        (10**18, 2, "1000000 TB"),
    ],
)
def test_sizes_for_people(size: int, precision: int, text: str) -> None:
    assert bytes_to_readable(size, precision) == text


def test_negative_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="negative"):
        bytes_to_readable(-1)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("5", 5),
        (" 5 b", 5),
        ("1.2 KB", 1200),
        ("1.0001 KB", 1000),
        ("1KiB", 1024),
        ("3  GiB", 3 << 30),
        ("5 mb", 5_000_000),
        ("5 TiB", 5 << 40),
        ("1e3", 1000),
        ("0.1 TB", 10**11),
    ],
)
def test_sizes_from_people(text: str, size: int) -> None:
    assert readable_to_bytes(text) == size


@pytest.mark.parametrize("text", ["", "KB", "1 XB", "1 K", "1,000", "nan", "inf", "1 2 KB"])
def test_what_is_no_size_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        readable_to_bytes(text)


def test_home_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROXYSTORE_HOME", "relative/~x")
    assert home_dir() == os.path.join(os.getcwd(), "relative/~x")
    monkeypatch.setenv("PROXYSTORE_HOME", "")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert home_dir() == "/data/proxystore"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert home_dir() == "/home/someone/.local/share/proxystore"
    assert hostname()


class Outer:
    class Inner:
        pass


@pytest.mark.parametrize("obj", [Outer, Outer.Inner, Timer, len, int, os.path.join])
def test_paths_of_objects_can_be_imported(obj: Any) -> None:
    assert import_from_path(get_object_path(obj)) is obj


@pytest.mark.parametrize("path", ["os", "", ".os", "os.", "nope.x", "os.nope", "json.nope.x"])
def test_a_path_to_nothing_is_an_import_error(path: str) -> None:
    with pytest.raises(ImportError):
        import_from_path(path)


def test_a_path_into_a_function_says_so() -> None:
    with pytest.raises(ImportError, match="inside a function"):
        import_from_path(get_object_path(lambda: None))


def test_counter() -> None:
    counter = AtomicCounter(2)
    assert [counter.increment(), counter.increment()] == [0, 1]
    for _ in range(2):
        with pytest.raises(ValueError, match="Max counter size"):
            counter.increment()


def test_counter_gives_each_value_once() -> None:
    counter = AtomicCounter()
    barrier = threading.Barrier(4)

    def work() -> list[int]:
        barrier.wait()
        return [counter.increment() for _ in range(500)]

    with ThreadPoolExecutor(4) as pool:
        values = [v for f in [pool.submit(work) for _ in range(4)] for v in f.result()]
    assert sorted(values) == list(range(2000))


def test_timer() -> None:
    timer = Timer()
    assert timer.start() is timer
    for name in ("elapsed_ns", "elapsed_ms", "elapsed_s"):
        with pytest.raises(RuntimeError, match="running"):
            getattr(timer, name)
    assert timer.stop() is timer
    assert timer.elapsed_ns > 0
    assert math.isclose(timer.elapsed_ms, timer.elapsed_ns / 1e6)
    assert math.isclose(timer.elapsed_s, timer.elapsed_ns / 1e9)
    elapsed = timer.elapsed_ns
    assert timer.stop().elapsed_ns == elapsed


def test_toml_comes_back() -> None:
    data = {
        "text": 'tab\t quote" back\\ del\x7f nul\x00 é 😀',
        "numbers": [1, -2.5, 1e300, math.inf, True],
        "tables": [{"a": 1, "b c": []}],
        "nested": {"deep": {"empty": {}, "dotted.key": 1}, "": "empty key"},
    }
    assert tomllib.loads(to_toml(data)) == data
    assert to_toml({}) == ""
    assert math.isnan(tomllib.loads(to_toml({"x": math.nan}))["x"])


def test_toml_says_where_it_cannot_be_written() -> None:
    with pytest.raises(TypeError, match=r"a\.b\.1 cannot"):
        to_toml({"a": {"b": [1, None]}})
    with pytest.raises(TypeError, match="keys are strings"):
        to_toml({"a": {1: 2}})


def test_own_configurations_as_toml() -> None:
    config = ConnectorConfig(kind="local", options={"a": None, "b": 1})
    assert loads(ConnectorConfig, dumps(config)).options == {"b": 1}
    with pytest.raises(TypeError, match=r"options\.a"):
        dumps(config, exclude_none=False)


def test_pydantic_models_as_toml() -> None:
    pydantic = pytest.importorskip("pydantic")
    model: Any = pydantic.create_model("M", a=(int, ...), b=(str | None, None), c=(dict, {}))
    file = io.BytesIO()
    dump(model(a=1, c={"x": {"y": [1]}}), file)
    file.seek(0)
    assert load(model, file) == model(a=1, c={"x": {"y": [1]}})
    with pytest.raises(ValueError):
        loads(model, 'a = "1"')


async def _spawn(coro: Any) -> asyncio.Task[Any]:
    task = spawn_guarded_background_task(coro)
    await asyncio.sleep(0.01)
    return task


def test_failed_task_ends_the_program(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("the reason")

    with caplog.at_level(logging.ERROR), pytest.raises(SystemExit) as caught:
        asyncio.run(_spawn(fail))
    assert caught.value.code == 1
    assert "the reason" in caplog.text


def test_tasks_that_end_quietly(caplog: pytest.LogCaptureFixture) -> None:
    async def leave() -> None:
        raise SafeTaskExitError

    async def finish() -> None:
        pass

    async def cancelled() -> None:
        raise asyncio.CancelledError

    for coro in (leave, finish, cancelled):
        assert asyncio.run(_spawn(coro)).done()
    assert not caplog.records

"""What old versions wrote is read as it was meant; run as a program, this writes what is new.

The files are those of the Rust tests (`crates/proxystore/tests/it/corpus`), and `manifest.txt` says what they must
decode to. Python adds what it alone writes and reads. Nothing is ever changed or removed there.
"""

from __future__ import annotations

import array
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from proxystore_rs.connectors.file import FileKey
from proxystore_rs.connectors.local import LocalConnector
from proxystore_rs.connectors.memory import MemoryConnector
from proxystore_rs.connectors.multi import MultiKey
from proxystore_rs.connectors.redis import RedisKey
from proxystore_rs.connectors.shm import SharedMemoryKey
from proxystore_rs.exceptions import FutureCancelledError, FutureFailedError
from proxystore_rs.proxy import Proxy, facts, get_factory, is_resolved
from proxystore_rs.store import Store
from proxystore_rs.store.keys import SealedKey

CORPUS = Path(__file__).parents[2] / "crates/proxystore/tests/it/corpus"
MANIFEST = CORPUS / "manifest.txt"
SECRET = bytes([7] * 32)
"""What opens the sealed objects."""


def manifest() -> dict[str, str]:
    lines = [line for line in MANIFEST.read_text().splitlines() if not line.startswith("#")]
    return dict(line.split(" = ", 1) for line in lines)


def plain(value: Any) -> str:
    """Write a value as the Rust tests do."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case bytes():
            return f'x"{value.hex()}"'
        case list():
            return f"[{', '.join(plain(item) for item in value)}]"
        case dict():
            items = sorted(value.items())
            return "{" + ", ".join(f"{plain(name)}: {plain(item)}" for name, item in items) + "}"
    return repr(value)


def shown(value: Any) -> str:
    """Write an object as no version of NumPy changes its mind about."""
    match value:
        case np.ndarray():
            return f"{value.dtype.str} {list(value.shape)} of sum {value.view('<i2').sum()}"
        case list():
            return f"[{', '.join(shown(item) for item in value)}]"
    return repr(value)


def describe(value: Any, meaning: str) -> str:
    """What a payload decoded to, in the words of the manifest."""
    kind = meaning.split(" ")[0]
    if kind == "Python":
        return f"{meaning.split(': ', 1)[0]}: {shown(value)}"
    match value:
        case np.ndarray():
            order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
            elements = value.tobytes(order="A").hex()
            return f"array {value.dtype.str} {list(value.shape)} {order} {elements}"
        case str() if len(value) > 100:
            coded = value.encode()
            return f"text of {len(coded)} bytes, of sum {sum(coded)}"
        case str():
            return f"text {value}"
        case pa.Table():
            names = ", ".join(value.column_names)
            return f"table of pyarrow, {value.num_rows} rows of {names}"
        case bytes():
            return f"bytes {value.hex()}"
    return f"value {plain(value)}"


PAYLOADS = sorted(path for path in manifest() if path.startswith("payload/"))


@pytest.mark.parametrize("path", PAYLOADS)
def test_payloads_are_read_as_they_were_meant(path: str) -> None:
    meaning = manifest()[path]
    connector = LocalConnector()
    with Store(f"old-{path}", connector) as store:
        key = connector.put((CORPUS / path).read_bytes())
        if meaning.startswith(("failed", "cancelled")):
            with pytest.raises((FutureFailedError, FutureCancelledError)) as raised:
                store.get(key)
            assert meaning.split(": ")[1] in str(raised.value)
            return
        assert describe(store.get(key), meaning) == meaning


OBJECTS = sorted(path for path in manifest() if path.startswith("object/"))


@pytest.mark.parametrize("path", OBJECTS)
def test_protected_objects_are_read_as_they_were_meant(path: str) -> None:
    meaning = manifest()[path]
    connector = LocalConnector()
    with Store(f"old-{path}", connector) as store:
        key: Any = connector.put((CORPUS / path).read_bytes())
        if "sealed" in path:
            key = SealedKey(key, SECRET)
        assert describe(store.get(key), meaning) == meaning
        assert describe(store.view(key).load(), meaning) == meaning


def test_tables_are_read_by_column() -> None:
    connector = LocalConnector()
    with Store("old-columns", connector) as store:
        key = connector.put((CORPUS / "payload/v1-python-table.bin").read_bytes())
        assert store.get(key).equals(payloads()["table"])
        assert store.view(key)["label"].to_pylist() == ["a", None, "c"]


def test_facts_are_told_as_they_were() -> None:
    proxy: Any = Proxy.from_text((CORPUS / "text/v1-python-facts.txt").read_text())
    assert facts(proxy)[:5] == ("numpy.ndarray", 2, (2, 3), "<f8", 48)
    assert referred(proxy) == manifest()["text/v1-python-facts.txt"]
    assert proxy.shape == (2, 3)
    assert not is_resolved(proxy)


REFERENCES = sorted(path for path in manifest() if path.startswith("text/"))


@pytest.mark.parametrize("path", REFERENCES)
def test_references_are_read_and_written_as_they_were(path: str) -> None:
    text = (CORPUS / path).read_text()
    if "extension" in path:
        pytest.skip("its extension is no pickle: it was not written by Python")
    proxy = Proxy.from_text(text)
    assert not is_resolved(proxy)
    assert proxy.to_text(secret=True) == text
    assert "store=demo, key=" in repr(get_factory(proxy))


def referred(proxy: Any) -> str:
    """Describe the reference of an array of 2 by 3, as the Rust tests do."""
    key, told = get_factory(proxy).key, facts(proxy)
    assert told.created is not None
    created = round(told.created.timestamp() * 1000)
    return (
        f"store demo at memory://demo, key {key.id}@{key.generation} {key.size}, class numpy:ndarray, "
        f'facts Some(2) Some([2, 3]) Some("<f8") Some(48) Some({created}) Some("{told.origin}")'
    )


def travelled(value: Any) -> str:
    """What came out of a pickle; a proxy by what makes its target."""
    return f"{type(value).__name__} {get_factory(value) if type(value) is Proxy else value!r}"


PICKLES = sorted(path for path in manifest() if path.startswith("pickle/"))


@pytest.mark.parametrize("path", PICKLES)
def test_pickles_are_read_as_they_were_meant(path: str) -> None:
    value = pickle.loads((CORPUS / path).read_bytes())
    assert travelled(value) == manifest()[path]


def test_there_is_something_of_everything() -> None:
    assert len(PAYLOADS) > 12
    assert len(REFERENCES) > 10
    assert len(PICKLES) > 4


def payloads() -> dict[str, Any]:
    """Objects that Python writes in its own way."""
    return {
        "pickle": [1, "two", None, (3.5, {"four": b"5"})],
        "pickle-buffers": [array.array("b", [1, 2]), np.arange(3000, dtype="<i2")],
        "pickle-datetimes": np.array(["2026-11-21", "NaT"], dtype="<M8[D]"),
        "array-complex": np.array([[1 + 2j], [3 - 4j]]),
        "array-bool": np.array([True, False]),
        "array-strided": np.arange(6, dtype="<i4").reshape(2, 3).T,
        "bytes": b"from Python",
        "str": "from Python",
        "table": pa.table({"x": [1, 2, 3], "label": ["a", None, "c"]}),
    }


def text() -> tuple[bytes, str]:
    """A reference with facts, and what it says."""
    with Store("demo", MemoryConnector("demo")) as store:
        proxy: Any = store.proxy(np.ones((2, 3)))
        return proxy.to_text(secret=True).encode(), referred(proxy)


def pickles() -> dict[str, Any]:
    """What travels as a pickle."""
    store = Store("old-pickles", LocalConnector())
    key = store.put("x")
    store.close()
    return {
        "file-key": FileKey("0123456789abcdef", 1, 100),
        "redis-key": RedisKey("run.7", 1, 100),
        "shm-key": SharedMemoryKey("o-0000000000000001-2f", 100),
        "multi-key": MultiKey("small", FileKey("0123456789abcdef", 1, 100)),
        "local-key": key,
        "proxy": Proxy.from_text((CORPUS / "text/v1-plain.txt").read_text()),
    }


def add(path: str, content: bytes, meaning: str) -> None:
    file = CORPUS / path
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        with MANIFEST.open("a") as lines:
            lines.write(f"{path} = {meaning}\n")


def main() -> None:
    connector = LocalConnector()
    store = Store("old-bytes", connector)
    for name, value in payloads().items():
        content = bytes(memoryview(connector.get(store.put(value))))
        codec, parts = content[10], int.from_bytes(content[20:24], "little")
        meaning = f"Python pickle in {parts} parts" if codec == 16 else ""
        add(f"payload/v1-python-{name}.bin", content, describe(value, meaning or "value"))
    add("text/v1-python-facts.txt", *text())
    for name, value in pickles().items():
        add(f"pickle/v1-{name}.pickle", pickle.dumps(value, 5), travelled(value))
    store.close()


if __name__ == "__main__":
    sys.exit(main())

"""Sealed, signed, compressed and checked objects of one language in the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from exchange_peer import Rust, RustError
from exchange_samples import check, sample

from proxystore_rs import trust
from proxystore_rs.proxy import Proxy
from proxystore_rs.store import open_store

KINDS = ("text", "bytes-large", "array:f8:C:2x3x4", "table-of-numbers")
WAYS: dict[str, dict[str, Any]] = {
    "sealed": {"seal": True},
    "signed": {"seal": "signed"},
    "zstd": {"compression": "zstd"},
    "lz4": {"compression": "lz4"},
    "checked": {"checksums": True},
}


@pytest.fixture(scope="module", autouse=True)
def _identity(tmp_path_factory: pytest.TempPathFactory) -> None:
    try:
        trust.identity()
    except ValueError:  # none yet: it is chosen once a process
        key: Path = tmp_path_factory.mktemp("identity") / "key"
        trust.make_identity(key)
        trust.identity(key)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_protected_by_python(rust: Rust, url: str, way: str, kind: str) -> None:
    with open_store(url, name=f"python-{way}-{url}", **WAYS[way]) as store:
        rust.check(kind, store.proxy(sample(kind)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", [way for way in WAYS if way != "signed"])
def test_protected_by_rust(rust: Rust, url: str, way: str, kind: str) -> None:
    check(rust.make(kind, url, way), kind)


def test_rust_does_not_open_what_came_without_its_secret(rust: Rust, url: str) -> None:
    with open_store(url, name=f"python-sealed-{url}", seal=True) as store:
        text = Proxy.to_text(store.proxy("for your eyes only"))
        with pytest.raises(RustError, match="secret") as caught:
            rust.ask("check", "text", text)
        assert caught.value.kind == "Sealed"

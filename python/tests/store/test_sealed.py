"""Sealed, signed, compressed and checksummed objects."""

from __future__ import annotations

import base64
import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proxystore_rs.connectors.file import FileConnector
from proxystore_rs.exceptions import (
    CorruptObjectError,
    SealedObjectError,
    StoreConfigError,
    TamperedObjectError,
)
from proxystore_rs.proxy import ProxyResolveError, get_factory, resolve
from proxystore_rs.store import Store
from proxystore_rs.store.config import StoreConfig
from proxystore_rs.store.keys import SealedKey
from proxystore_rs.trust import make_identity, require_producers


@pytest.fixture
def sealed(make_store: Any) -> Store[Any]:
    store: Store[Any] = make_store("file", seal=True, populate_target=False)
    return store


def _files(store: Store[Any]) -> list[Path]:
    return [
        path for path in Path(store.connector.config()["store_dir"]).rglob("*") if path.is_file()
    ]


def _total(proxy: Any, results: Any) -> None:
    results.put(int(proxy.sum()))


def test_objects_come_back_by_key_and_by_proxy(sealed: Store[Any]) -> None:
    array = np.arange(200_000)
    key = sealed.put({"a": 1})
    assert type(key) is SealedKey
    assert sealed.get(key) == {"a": 1}
    assert sealed.exists(key)
    assert sealed.connector.exists(key.key)
    proxy = sealed.proxy(array)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_total, args=(proxy, results))
    process.start()
    assert results.get(timeout=60) == array.sum()
    process.join(60)
    keys = sealed.put_batch([1, 2, 3])
    assert [sealed.get(key) for key in keys] == [1, 2, 3]
    assert [int(p) for p in sealed.proxy_batch([4, 5])] == [4, 5]
    assert pickle.loads(pickle.dumps(key)) == key
    assert sealed.proxy_from_key(key)["a"] == 1
    sealed.evict(key)
    assert not sealed.exists(key)


def test_the_channel_sees_nothing_and_the_secret_is_not_shown(sealed: Store[Any]) -> None:
    key = sealed.put("for your eyes only" * 100)
    for path in _files(sealed):
        assert b"eyes" not in path.read_bytes()
    proxy = sealed.proxy("for your eyes only")
    factory = get_factory(proxy)
    secrets = [key.secret, factory.key.secret]
    shown = f"{key!r} {key} {proxy!r} {factory!r} {sealed!r} {sealed.config()!r}"
    for secret in secrets:
        for text in (secret.hex(), repr(secret), base64.b64encode(secret).decode()[:20]):
            assert text not in shown


def test_a_key_without_its_secret_opens_nothing(sealed: Store[Any]) -> None:
    key = sealed.put([1, 2, 3])
    sealed._cache_evict(key)
    with pytest.raises(SealedObjectError, match="secret"):
        sealed.get(key.key)
    with pytest.raises(ProxyResolveError) as info:
        resolve(sealed.proxy_from_key(key.key))
    assert isinstance(info.value.cause, SealedObjectError)


def test_altered_and_exchanged_objects_are_refused(sealed: Store[Any]) -> None:
    one, two = sealed.put("one" * 1000), sealed.put("two" * 1000)
    sealed._cache_evict(one)
    sealed._cache_evict(two)
    files = {
        key.key.filename: path
        for key in (one, two)
        for path in _files(sealed)
        if path.name.startswith(key.key.filename)
    }
    first, second = files[one.key.filename], files[two.key.filename]
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    with pytest.raises(CorruptObjectError):  # by the file layout or by the seal
        sealed.get(one)
    altered = bytearray(kept)
    altered[-40] ^= 1
    first.write_bytes(altered)
    with pytest.raises(TamperedObjectError, match="altered"):
        sealed.get(one)
    assert sealed.get(two) == "two" * 1000


def test_patterns_of_sealed_stores(sealed: Store[Any]) -> None:
    future: Any = sealed.future()
    waiting = pickle.loads(pickle.dumps(future.proxy()))
    future.set_result([1, 2])
    assert waiting == [1, 2]
    failing: Any = sealed.future()
    failing.set_exception(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        failing.result()
    owner = sealed.owned_proxy([1, 2, 3])
    assert pickle.loads(pickle.dumps(get_factory(owner)))() == [1, 2, 3]
    locked = sealed.locked_proxy([4])
    assert locked.unlock() == [4]


def test_no_secrets_travel_inline(make_store: Any) -> None:
    store = make_store("memory", seal=True, inline_bytes=10_000)
    proxy = store.proxy("for your eyes only")
    assert b"eyes" not in pickle.dumps(proxy)


def test_configurations_carry_the_settings(tmp_path: Path, make_store: Any) -> None:
    store = make_store("file", seal="signed", compression="zstd", checksums=True)
    config = store.config()
    assert (config.seal, config.compression, config.checksums) == ("signed", "zstd", True)
    config.write_toml(tmp_path / "store.toml")
    assert StoreConfig.from_toml(tmp_path / "store.toml") == config
    with pytest.raises(StoreConfigError, match=r"StoreConfig\.compression must be one of"):
        make_store("file", compression="rar")
    with pytest.raises(StoreConfigError, match="'signed'"):
        make_store("file", seal="wax")


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
@pytest.mark.parametrize("seal", [False, True])
def test_compressed_objects_are_small(make_store: Any, compression: str, seal: bool) -> None:
    store = make_store("memory", compression=compression, seal=seal)
    key = store.put(np.zeros(1_000_000))
    own = key.key if seal else key
    assert own.size < 100_000
    store._cache_evict(key)
    assert not store.get(key).any()
    noise = np.random.default_rng(1).bytes(100_000)
    assert store.get(store.put(noise)) == noise


def test_checksums_notice_damage(make_store: Any) -> None:
    store = make_store("file", checksums=True, cache_size=0)
    key = store.put(np.arange(100_000))
    (path,) = [path for path in _files(store) if path.name.startswith(key.filename)]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(CorruptObjectError, match="checksum"):
        store.get(key)


SIGNING = """
import pickle, sys
from proxystore_rs.connectors.file import FileConnector
from proxystore_rs.store import Store
store = Store('signed', FileConnector(sys.argv[1]), seal='signed', register=True)
sys.stdout.buffer.write(pickle.dumps(store.proxy(list(range(10)))))
"""


def test_signed_proxies_resolve_elsewhere_and_need_a_key(tmp_path: Path) -> None:
    program = [sys.executable, "-c", SIGNING, str(tmp_path / "channel")]
    failed = subprocess.run(program, capture_output=True, timeout=60, check=False)
    assert b"PROXYSTORE_SIGNING_KEY" in failed.stderr
    key_file = tmp_path / "key"
    public_key = make_identity(key_file)
    assert key_file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        make_identity(key_file)
    environment = {**os.environ, "PROXYSTORE_SIGNING_KEY": str(key_file)}
    done = subprocess.run(program, capture_output=True, timeout=60, check=True, env=environment)
    proxy = pickle.loads(done.stdout)
    again = pickle.loads(pickle.dumps(proxy))
    assert len(pickle.dumps(proxy)) <= 450
    assert again == list(range(10))
    assert pickle.loads(pickle.dumps(again)) == list(range(10))
    require_producers([public_key])
    try:
        assert pickle.loads(done.stdout) == list(range(10))
        require_producers(["00" * 32])
        with pytest.raises(ProxyResolveError, match="known"):
            resolve(pickle.loads(done.stdout))
    finally:
        require_producers(None)
    FileConnector(tmp_path / "channel").close(clear=True)

"""Several connectors as one: policies, keys, dormant connectors, and how all that travels."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from proxystore_rs.connectors import multi
from proxystore_rs.connectors.file import FileConnector, FileKey
from proxystore_rs.connectors.local import LocalConnector, LocalKey
from proxystore_rs.connectors.memory import MemoryConnector
from proxystore_rs.connectors.multi import MultiConnector, MultiConnectorError, MultiKey, Policy
from proxystore_rs.connectors.protocols import Connector, DeferrableConnector
from proxystore_rs.exceptions import StoreClosedError, StoreConfigError, UnsupportedOperationError
from proxystore_rs.proxy import Proxy, ProxyResolveError, is_resolved
from proxystore_rs.store import Store, StoreConfig, get_or_create_store, get_store
from proxystore_rs.store.utils import get_key

ELSEWHERE = Policy(host_pattern=["no such host", "nor this one"])


@pytest.fixture
def connector(tmp_path: Path) -> Any:
    """Bytes up to 10 in memory, others in files, tagged ones in a dictionary."""
    connector = MultiConnector(
        {
            "files": (FileConnector(str(tmp_path / "files")), Policy()),
            "memory": (MemoryConnector(tmp_path.name), Policy(priority=2, max_size_bytes=10)),
            "local": (LocalConnector(), Policy(priority=3, superset_tags=["local"])),
        }
    )
    yield connector
    connector.close(clear=True)


@pytest.mark.parametrize(
    ("policy", "given", "expected"),
    [
        (Policy(), {}, True),
        (Policy(min_size_bytes=3, max_size_bytes=3), {"size_bytes": 3}, True),
        (Policy(min_size_bytes=3), {"size_bytes": 2}, False),
        (Policy(max_size_bytes=3), {"size_bytes": 4}, False),
        (Policy(min_size_bytes=3), {}, True),
        (Policy(subset_tags=["a", "b"]), {"subset_tags": ["a"]}, True),
        (Policy(subset_tags=["a"]), {"subset_tags": ["a", "b"]}, False),
        (Policy(superset_tags=["a"]), {"superset_tags": ["b", "a"]}, True),
        (Policy(superset_tags=["a"]), {"superset_tags": ["b"]}, False),
        (Policy(superset_tags=["a"]), {}, False),
        (ELSEWHERE, {}, False),
        (Policy(host_pattern="(?i).*"), {}, True),
        (Policy(host_pattern=[]), {}, False),
    ],
)
def test_policies(policy: Policy, given: dict[str, Any], expected: bool) -> None:
    assert policy.is_valid(**given) is expected
    again = Policy(**policy.as_dict())
    assert again == policy
    assert again.is_valid(**given) is expected


def test_a_host_pattern_matches_the_whole_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multi, "hostname", lambda: "node7")
    assert Policy(host_pattern=r"node\d").is_valid_on_host()
    assert not Policy(host_pattern="node").is_valid_on_host()
    assert Policy(host_pattern=iter(["x", "node7"])).is_valid_on_host()
    with pytest.raises(StoreConfigError, match=r"'\(' is no regular expression"):
        Policy(host_pattern="(").is_valid_on_host()


def test_policies_route_and_keys_name_the_connector(connector: MultiConnector) -> None:
    assert isinstance(connector, Connector)
    assert isinstance(connector, DeferrableConnector)
    assert connector.connectors_by_priority == ["local", "memory", "files"]
    assert isinstance(connector.connectors["files"].connector, FileConnector)
    for data, tags, name, kind in (
        (b"small", (), "memory", tuple),
        (b"not so small", (), "files", FileKey),
        (b"tagged", ["local"], "local", LocalKey),
    ):
        key = connector.put(data, superset_tags=tags)
        assert isinstance(key, MultiKey)
        assert key.connector_name == name
        assert isinstance(key.connector_key, kind)
        assert pickle.loads(pickle.dumps(key)) == key
        assert connector.exists(key)
        assert bytes(connector.get(key)) == data
        assert connector.connectors[name].connector.exists(key.connector_key)
        assert connector.wait(key, timeout=0)
        connector.evict(key)
        assert connector.get(key) is None
    keys = connector.put_batch([b"a", b"bbbbbbbbbbbbb", b"c"])
    assert [key.connector_name for key in keys] == ["memory", "files", "memory"]
    assert [bytes(found) for found in connector.get_batch(keys)] == [b"a", b"b" * 13, b"c"]


def test_what_no_policy_takes_is_an_error_with_reasons() -> None:
    connector = MultiConnector(
        {
            "small": (LocalConnector(), Policy(max_size_bytes=3)),
            "far": (LocalConnector(), ELSEWHERE),
        }
    )
    with pytest.raises(MultiConnectorError) as caught:
        connector.put(b"abcd", subset_tags=["x"])
    for reason in ("small: max_size_bytes is 3", "far: its host_pattern", "size=4", '["x"]'):
        assert reason in str(caught.value)
    with Store("nobody-takes-it", connector) as store, pytest.raises(MultiConnectorError):
        store.put("a text")


def test_keys_of_other_connectors_are_refused(connector: MultiConnector) -> None:
    with pytest.raises(MultiConnectorError, match=r"does not have .* files, memory, local"):
        connector.get(MultiKey("elsewhere", FileKey("x")))
    for wrong in (FileKey("x"), ("files",), (1, FileKey("x")), "files:x"):
        with pytest.raises(TypeError, match="not a key"):
            connector.get(wrong)
    with pytest.raises(StoreConfigError, match="not usable"):
        connector.get(MultiKey("files", FileKey("../x")))


def test_wrong_parts_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"'a' is not a connector: it has no put, get, config"):
        MultiConnector({"a": (object(), Policy())})  # type: ignore[dict-item]
    with pytest.raises(StoreConfigError, match="empty or used twice"):
        MultiConnector({"": (LocalConnector(), Policy())})
    assert MultiConnector({}).config() == {}


def test_deferred_keys_belong_to_a_connector_for_any_size(connector: MultiConnector) -> None:
    key = connector.new_key()
    assert key.connector_name == "files"
    assert not connector.exists(key)
    connector.set(key, b"late")
    assert bytes(connector.get(key)) == b"late"

    limited = MultiConnector({"a": (LocalConnector(), Policy(max_size_bytes=9))})
    with pytest.raises(UnsupportedOperationError, match="a: max_size_bytes is 9, and the size"):
        limited.new_key()


def test_a_time_to_live_passes_over_channels_without_one() -> None:
    connector = MultiConnector({"a": (LocalConnector(), Policy())})
    with pytest.raises(UnsupportedOperationError, match="a: its channel has no time to live"):
        connector.put(b"x", ttl=10)


def test_closing_closes_all_even_if_one_fails(tmp_path: Path) -> None:
    class Broken(LocalConnector):
        def close(self) -> None:
            raise RuntimeError("stuck")

    kept, gone = tmp_path / "kept", tmp_path / "gone"
    connector = MultiConnector(
        {
            "kept": (FileConnector(str(kept), clear=False), Policy()),
            "broken": (Broken(), Policy()),
            "gone": (FileConnector(str(gone)), Policy(priority=1)),
        }
    )
    connector.put(b"x")
    with pytest.raises(RuntimeError, match="stuck"):
        connector.close()
    assert kept.exists()
    assert not gone.exists()
    with pytest.raises(StoreClosedError, match="closed"):
        connector.put(b"x")


def test_stores_pass_tags_on(connector: MultiConnector) -> None:
    with Store("tags", connector, register=True, metrics=True) as store:
        key = store.put([1], superset_tags=["local", "other"])
        assert key.connector_name == "local"
        assert store.get(key) == [1]
        assert store.is_cached(key)
        proxy = store.proxy([2], superset_tags=["local"], populate_target=False)
        assert get_key(proxy).connector_name == "local"  # type: ignore[attr-defined]
        assert proxy == [2]
        keys = store.put_batch([1, 2], superset_tags=["local"])
        assert {key.connector_name for key in keys} == {"local"}
        assert get_key(store.proxy([3])).connector_name == "files"  # type: ignore[attr-defined]
        assert store.metrics is not None
        found = store.metrics.get_metrics(key)
        assert found is not None
        assert {"store.put", "store.put.connector", "store.get"} <= set(found.times)
        store.evict(key)
        assert not store.exists(key)
        with pytest.raises(TypeError, match="color"):
            store.put([1], color="red")


def test_a_missing_object_is_named_by_its_key(connector: MultiConnector) -> None:
    with Store("missing-multi", connector, register=True) as store:
        proxy = store.proxy([1], superset_tags=["local"], populate_target=False)
        key: Any = get_key(proxy)
        store.evict(key)
        with pytest.raises(ProxyResolveError, match=re.escape(key.connector_key.id)):
            len(proxy)


def test_dormant_connectors_are_kept_and_named(
    connector: MultiConnector, monkeypatch: pytest.MonkeyPatch
) -> None:
    connector.connectors["memory"].policy.host_pattern = "node7"
    # As on a host of that name.
    monkeypatch.setattr(multi, "hostname", lambda: "node7")
    there = MultiConnector.from_config(connector.config())
    key = there.put(b"small")
    assert key.connector_name == "memory"

    monkeypatch.setattr(multi, "hostname", lambda: "node8")
    here = MultiConnector.from_config(connector.config())
    assert set(here.connectors) == {"files", "local"}
    assert set(here.dormant_connectors) == {"memory"}
    assert here.config() == there.config() == connector.config()
    assert list(here.config()) == list(there.config())
    assert here.url == there.url  # one channel, whatever is dormant
    assert here.put(b"small").connector_name == "files"
    with pytest.raises(MultiConnectorError, match=r"dormant.*'node7'.*'node8'"):
        here.get(key)

    # The key of a proxy can be looked at, although the object cannot be reached.
    with Store("dormant", there) as store:
        pickled = pickle.dumps(store.proxy_from_key(key))
    assert get_key(pickle.loads(pickled)) == key


def test_a_class_that_is_not_there_makes_its_connector_dormant(connector: MultiConnector) -> None:
    config = connector.config()
    config["strange"] = ("no_such_package.Strange", {"a": 1}, Policy().as_dict())
    opened = MultiConnector.from_config(config)
    assert opened.config() == config
    with pytest.raises(MultiConnectorError, match=r"dormant: .*no_such_package"):
        opened.exists(MultiKey("strange", LocalKey("x")))
    config["strange"] = ("fiel", {}, Policy().as_dict())
    with pytest.raises(StoreConfigError, match='"fiel"'):
        MultiConnector.from_config(config)


def test_the_url_names_connectors_and_channels(tmp_path: Path) -> None:
    connector = MultiConnector(
        {
            "a b": (MemoryConnector("x"), Policy()),
            "local": (LocalConnector(), Policy()),
            "in": (MultiConnector({"y": (MemoryConnector("z"), Policy(priority=7))}), Policy()),
        }
    )
    assert connector.url == (
        "multi:a%20b=memory://x;local=python:proxystore_rs.connectors.local.LocalConnector;"
        "in=multi:y=memory://z"
    )
    config = StoreConfig._from_native(
        "n",
        *StoreConfig(
            name="n",
            connector={"kind": "multi", "options": connector.config()},  # type: ignore[arg-type]
        )._native()[1:],
    )
    assert config.connector.options == connector.config()
    key = connector.put(b"x")
    assert MultiConnector.from_config(connector.config()).exists(key)


def test_a_configuration_survives_a_file(connector: MultiConnector, tmp_path: Path) -> None:
    connector.connectors["local"].policy.host_pattern = ["a.*", ".*"]
    with Store("toml-multi", connector) as store:
        key = store.put("x" * 100)
        store.config().write_toml(tmp_path / "store.toml")
        config = StoreConfig.from_toml(tmp_path / "store.toml")
        assert config.connector.kind == "proxystore_rs.connectors.multi.MultiConnector"
        again = get_or_create_store(config)
        try:
            assert again.get(key) == "x" * 100
            assert again.connector.config() == connector.config()
            assert again.connector.url == connector.url
            assert get_or_create_store(store.config()) is again
        finally:
            again.close()


def test_a_store_of_one_name_on_other_channels_is_refused() -> None:
    def store(option: bool, channel: str) -> Store[Any]:
        parts: dict[str, Any] = {
            "memory": (MemoryConnector(channel), Policy(priority=1)),
            "local": (LocalConnector(include_data_in_config=option), Policy()),
        }
        return Store("one-name", MultiConnector(parts), register=True)

    with store(True, "one"):
        pass
    proxies = []
    for option, channel in ((False, "one"), (True, "two")):
        with store(option, channel) as other:
            proxies.append(pickle.dumps(other.proxy([1])))
    with store(True, "one"):
        for pickled in proxies:
            with pytest.raises(ProxyResolveError, match="another"):
                len(pickle.loads(pickled))


FOREIGN = '''
import os, uuid
from typing import NamedTuple

class DirKey(NamedTuple):
    name: str
    note: str

class DirConnector:
    """Files, by a connector written in Python, whose keys hold odd characters."""
    def __init__(self, path): self.path = path
    def _at(self, key): return os.path.join(self.path, key.name)
    def put(self, obj):
        key = DirKey(uuid.uuid4().hex, "a|b:c;d=%e")
        with open(self._at(key), "wb") as file: file.write(obj)
        return key
    def put_batch(self, objs): return [self.put(obj) for obj in objs]
    def get(self, key):
        try:
            with open(self._at(key), "rb") as file: return file.read()
        except FileNotFoundError: return None
    def get_batch(self, keys): return [self.get(key) for key in keys]
    def exists(self, key): return os.path.exists(self._at(key))
    def evict(self, key):
        if self.exists(key): os.remove(self._at(key))
    def close(self): pass
    def config(self): return {"path": self.path}
    @classmethod
    def from_config(cls, config): return cls(**config)
'''


def test_proxies_resolve_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "foreign_dir.py").write_text(FOREIGN)
    monkeypatch.syspath_prepend(str(tmp_path))
    import foreign_dir  # type: ignore[import-not-found]

    (tmp_path / "dir").mkdir()
    connector = MultiConnector(
        {
            "files": (FileConnector(str(tmp_path / "files")), Policy(max_size_bytes=1000)),
            "dir: 1": (foreign_dir.DirConnector(str(tmp_path / "dir")), Policy()),
        }
    )
    program = textwrap.dedent(
        """
        import pickle, sys
        from proxystore_rs.store import get_store
        for proxy, length in pickle.load(sys.stdin.buffer):
            assert len(proxy) == length, length
        store = get_store("multi-elsewhere")
        print(sorted(store.connector.connectors), store.put("x" * 2000).connector_name)
        """
    )
    with Store("multi-elsewhere", connector, register=True) as store:
        proxies: list[tuple[Proxy[str], int]] = []
        for length in (10, 2000):
            proxy = store.proxy("x" * length, populate_target=False)
            evicting = store.proxy("y" * length, evict=True, populate_target=False)
            proxies += [(proxy, length), (evicting, length)]
        names = [get_key(proxy).connector_name for proxy, _ in proxies]  # type: ignore[attr-defined]
        assert names == ["files", "files", "dir: 1", "dir: 1"]
        done = subprocess.run(
            [sys.executable, "-c", program],
            input=pickle.dumps(proxies),
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr.decode()
        assert done.stdout.decode().split("]")[1].strip() == "dir: 1"
        assert [store.exists(get_key(proxy)) for proxy, _ in proxies] == [True, False, True, False]
        assert not any(is_resolved(proxy) for proxy, _ in proxies)


def test_the_background_fetch_serves_python_connectors_too(connector: MultiConnector) -> None:
    from proxystore_rs.store.utils import resolve_async

    with Store("background-multi", connector, register=True) as store:
        proxy = store.proxy([1, 2], superset_tags=["local"], populate_target=False)
        resolve_async(proxy)
        assert proxy == [1, 2]
        assert get_store(proxy) is store

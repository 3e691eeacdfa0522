"""What a process believes of references, and where it may resolve them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxystore_rs import trust
from proxystore_rs.connectors.file import FileConnector
from proxystore_rs.connectors.local import LocalConnector
from proxystore_rs.connectors.multi import MultiConnector, Policy
from proxystore_rs.connectors.redis import RedisConnector
from proxystore_rs.exceptions import SitePolicyError, StoreConfigError, UntrustedError
from proxystore_rs.proxy import Proxy, ProxyResolveError, get_factory, resolve
from proxystore_rs.store import Store, get_store, open_store, unregister_store
from proxystore_rs.store.config import ConnectorConfig, StoreConfig
from proxystore_rs.store.factory import StoreFactory
from proxystore_rs.store.future import Future
from proxystore_rs.store.metrics import to_prometheus
from proxystore_rs.store.view import view

PIGEON = '''
"""A connector of somebody else, whose import leaves a trace."""
import os, pathlib
from typing import NamedTuple

pathlib.Path(os.environ["TRACE"]).touch()

class PigeonKey(NamedTuple):
    name: str

class Unnamed(tuple):
    pass

class Pigeon:
    def __init__(self, folder): self.folder = folder
    def config(self): return {"folder": self.folder}
    @classmethod
    def from_config(cls, config): return cls(**config)
    def close(self): pass
    def put(self, obj):
        name = os.urandom(4).hex()
        pathlib.Path(self.folder, name).write_bytes(obj)
        return PigeonKey(name)
    def get(self, key):
        path = pathlib.Path(self.folder, key[0])
        return path.read_bytes() if path.exists() else None
    def exists(self, key): return pathlib.Path(self.folder, key[0]).exists()
    def evict(self, key): pathlib.Path(self.folder, key[0]).unlink(missing_ok=True)
    def put_batch(self, objs): return [self.put(obj) for obj in objs]
    def get_batch(self, keys): return [self.get(key) for key in keys]

class Flock(Pigeon):
    """Its configuration is no plain data, and its keys are no named tuples."""
    def __init__(self, folder, birds=()): self.folder, self.birds = folder, birds
    def config(self): return {"folder": self.folder, "birds": {1, 2}}
    def put(self, obj): return Unnamed((super().put(obj).name,))

def shout(obj): return b"!" + obj.encode()
def whisper(data): return bytes(data)[1:].decode()
'''

PRODUCE = """
import pickle, sys
sys.path.insert(0, sys.argv[1])
from pigeon import *
from proxystore_rs.store import Store
folder = sys.argv[2]
with Store("pigeons", Pigeon(folder), register=True) as store:
    plain = pickle.dumps(store.proxy([1, 2]))
with Store("flocks", Flock(folder), register=True) as store:
    pickled = pickle.dumps(store.proxy([1, 2]))
from proxystore_rs.connectors.multi import MultiConnector, Policy
with Store("parts", MultiConnector({"a": (Pigeon(folder), Policy())}), register=True) as store:
    part = pickle.dumps(store.proxy([1, 2]))
from proxystore_rs.connectors.file import FileConnector
functions = dict(serializer=shout, deserializer=whisper)
with Store("functions", FileConnector(folder, clear=False), register=True, **functions) as store:
    function = pickle.dumps(store.proxy("abc"))
pickle.dump([plain, pickled, part, function], sys.stdout.buffer)
"""

CONSUME = """
import pickle, sys
sys.path.insert(0, sys.argv[1])
from proxystore_rs import trust
from proxystore_rs.exceptions import UntrustedError
{setup}
proxy = pickle.loads(pickle.load(sys.stdin.buffer)[{number}])
from proxystore_rs.proxy import resolve, ProxyResolveError
try:
    resolve(proxy)
    print("resolved", proxy)
except (UntrustedError, ProxyResolveError) as error:
    print(type(getattr(error, "cause", None) or error).__name__, error)
print("imported" if "pigeon" in sys.modules else "not imported")
"""

PLAIN, PICKLED, PART, FUNCTION = range(4)


@pytest.fixture
def sent(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that sends a proxy to a process which resolves it."""
    (tmp_path / "pigeon.py").write_text(PIGEON)
    objects = tmp_path / "objects"
    objects.mkdir()

    def run(code: str, message: bytes, **variables: str) -> subprocess.CompletedProcess[bytes]:
        trace = str(tmp_path / "trace")
        environment = {**os.environ, "TRACE": trace, "PROXYSTORE_IMPORTS": "", **variables}
        return subprocess.run(
            [sys.executable, "-c", code, str(tmp_path), str(objects)],
            input=message,
            capture_output=True,
            env=environment,
            timeout=300,
            check=False,
        )

    produced = run(PRODUCE, b"")
    assert produced.returncode == 0, produced.stderr.decode()

    def consume(number: int, setup: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "trace").unlink()
        code = CONSUME.format(number=number, setup=setup)
        done = run(code, produced.stdout, **variables)
        assert done.returncode == 0, done.stderr.decode()
        was_imported = (tmp_path / "trace").exists()
        assert was_imported == done.stdout.decode().endswith("\nimported\n")
        (tmp_path / "trace").touch()
        return subprocess.CompletedProcess([], 0, done.stdout.decode(), done.stderr.decode())

    return consume


def test_a_class_that_is_not_known_is_imported_with_a_warning(sent: Callable[..., Any]) -> None:
    for number in (PLAIN, PART):
        done = sent(number)
        assert done.stdout == "resolved [1, 2]\nimported\n"
        assert done.stderr.count("UntrustedImportWarning") == 1, done.stderr
        assert "pigeon.Pigeon" in done.stderr
        assert "trust.register(Pigeon)" in done.stderr
        allowed = sent(number, PROXYSTORE_IMPORTS="allow")
        assert allowed.stdout == done.stdout
        assert "Warning" not in allowed.stderr


@pytest.mark.parametrize("number", [PLAIN, PICKLED, PART, FUNCTION])
def test_refusing_imports_nothing(sent: Callable[..., Any], number: int) -> None:
    for setup, variables in (
        ("", {"PROXYSTORE_IMPORTS": "refuse"}),
        ("", {"PROXYSTORE_CODEC": "data"}),
        ("trust.imports('refuse')", {"PROXYSTORE_IMPORTS": "allow"}),
    ):
        done = sent(number, setup, **variables)
        assert done.stdout.startswith("UntrustedError"), done
        assert done.stdout.endswith("not imported\n")
        if "PROXYSTORE_CODEC" not in variables:  # which has more reasons to refuse
            assert "pigeon." in done.stdout
            assert "trust.register(" in done.stdout


def test_an_imported_module_is_no_registration(sent: Callable[..., Any]) -> None:
    done = sent(PLAIN, "import pigeon", PROXYSTORE_IMPORTS="refuse")
    assert done.stdout.startswith("UntrustedError"), done
    assert "pigeons" in done.stdout


def test_what_the_program_registers_is_resolved(sent: Callable[..., Any]) -> None:
    register = "import pigeon; trust.register(pigeon.{})".format
    refuse = {"PROXYSTORE_IMPORTS": "refuse"}
    for number in (PLAIN, PART):
        done = sent(number, register("Pigeon"), **refuse)
        assert done.stdout == "resolved [1, 2]\nimported\n", done
    done = sent(FUNCTION, f"{register('shout')}; trust.register(pigeon.whisper)", **refuse)
    assert done.stdout == "resolved abc\nimported\n", done
    done = sent(PICKLED, f"{register('Flock')}; trust.register(pigeon.Unnamed)", **refuse)
    assert done.stdout == "resolved [1, 2]\nimported\n", done


def test_a_mode_that_is_none_refuses(sent: Callable[..., Any]) -> None:
    done = sent(PLAIN, "UntrustedError = Exception", PROXYSTORE_IMPORTS="alow")
    assert "PROXYSTORE_IMPORTS must be one of allow, warn, refuse" in done.stdout
    assert done.stdout.endswith("not imported\n")
    with pytest.raises(StoreConfigError, match=r"imports\(\) must be one of"):
        trust.imports("alow")  # type: ignore[arg-type]


@pytest.fixture
def refusing() -> Iterator[None]:
    """This process imports nothing."""
    before = trust.imports("refuse")
    yield
    trust.imports(before)


class Crow(LocalConnector):
    """A connector of this program."""


class Raven(LocalConnector):
    """Another one, that no store is given."""


@pytest.mark.usefixtures("refusing")
def test_what_this_process_makes_is_known() -> None:
    with Store("crows", Crow(), register=True) as store:
        proxy: Proxy[Any] = pickle.loads(pickle.dumps(store.proxy([1], populate_target=False)))
        assert proxy == [1]
        config = get_factory(proxy).store_config
        unregister_store(store)
        again = get_store(pickle.loads(pickle.dumps(proxy)))
        assert again is not None
        assert again is not store
        assert again.config() == config
        again.close()
        store.close()
    own = ConnectorConfig(kind=f"{__name__}.Raven")
    assert isinstance(own.get_connector(), Raven), "what the program names itself is no question"
    factory: Any = StoreFactory(("a", "b"), StoreConfig(name="ravens", connector=own))
    with pytest.raises(UntrustedError, match=r"'ravens' names .*\.Raven"):
        pickle.loads(pickle.dumps(factory)).get_store()


@pytest.mark.usefixtures("refusing")
def test_all_of_this_package_is_known(make_store: Callable[..., Store[Any]]) -> None:
    for kind in ("local", "memory", "file", "shm", "multi"):
        store = make_store(kind)
        proxy = pickle.loads(pickle.dumps(store.proxy([1], populate_target=False)))
        assert get_factory(proxy).store_config.connector.get_connector_type()
        assert proxy == [1]


@pytest.mark.usefixtures("refusing")
@pytest.mark.parametrize(
    "path", ["os:path", "subprocess:Popen", "antigravity:fly", "nonsense", "collections:deque"]
)
def test_a_key_names_a_tuple_of_a_loaded_module_or_nothing(path: str) -> None:
    with Store("keys", LocalConnector(), register=True) as store:
        with pytest.raises(UntrustedError, match="key in a reference"):
            trust._key_class(*path.partition(":")[::2])
        assert "antigravity" not in sys.modules
        assert resolve(store.proxy([1])) is None


def test_classes_registered_as_decorated_are_found() -> None:
    @trust.register
    class Local(LocalConnector):
        pass

    kind = f"{__name__}.{Local.__qualname__}"
    assert ConnectorConfig(kind=kind).get_connector_type() is Local


# Sites.


def received(store: Store[Any], obj: Any = "secret") -> Proxy[Any]:
    proxy: Proxy[Any] = pickle.loads(pickle.dumps(store.proxy(obj, populate_target=False)))
    return proxy


def refused(proxy: Proxy[Any]) -> str:
    with pytest.raises(ProxyResolveError) as caught:
        resolve(proxy)
    assert isinstance(caught.value.cause, SitePolicyError)
    return str(caught.value.cause)


@pytest.mark.parametrize("inline_bytes", [0, 1000])
def test_objects_are_resolved_where_the_store_permits_it(
    make_store: Callable[..., Store[Any]], monkeypatch: pytest.MonkeyPatch, inline_bytes: int
) -> None:
    monkeypatch.setenv("PROXYSTORE_SITE", "Polaris")
    here = make_store("file", sites=["*.far", "pol?ris"], inline_bytes=inline_bytes)
    assert received(here) == "secret"
    away = make_store("file", sites=("*.far",), inline_bytes=inline_bytes)
    text = refused(received(away))
    for proxy in (received(away), away.proxy("secret")):
        with pytest.raises(SitePolicyError):
            len(view(proxy))
    for part in ("Polaris", "*.far", "PROXYSTORE_SITE", away.name):
        assert part in text
    assert away.config().sites == ["*.far"]
    assert StoreConfig(**away.config().model_dump()).sites == ["*.far"]


def test_neither_keys_nor_caches_nor_futures_go_around_it(
    make_store: Callable[..., Store[Any]],
) -> None:
    store = make_store("shm", sites=["*.far"])
    key = store.put("secret")
    store.cache.set(key, "secret")
    future: Future[str] = store.future()
    future.set_result("secret")
    proxy = received(store)
    for read in (
        lambda: store.get(key),
        lambda: store.cache.get(key),
        lambda: future.result(timeout=10),
        lambda: get_factory(proxy).resolve(),
        lambda: get_factory(proxy).resolve_async(),
    ):
        with pytest.raises(SitePolicyError):
            read()
    assert store.exists(key)
    store.evict(key)
    assert not store.exists(key)


@pytest.mark.parametrize("inline_bytes", [0, 1000])
def test_a_store_of_the_same_name_does_not_loosen_it(tmp_path: Path, inline_bytes: int) -> None:
    for strict_first in (True, False):
        name = f"loose-{inline_bytes}-{strict_first}"
        sites = (["*.far"], None) if strict_first else (None, ["*.far"])
        connector = FileConnector(str(tmp_path))
        with Store(name, connector, sites=sites[0], inline_bytes=inline_bytes) as store:
            data = pickle.dumps(store.proxy("secret"))
        with Store(name, FileConnector(str(tmp_path)), sites=sites[1], register=True):
            refused(pickle.loads(data))
            with pytest.raises(SitePolicyError):
                view(pickle.loads(data)).load()


def test_sites_are_a_list_of_texts(tmp_path: Path) -> None:
    for sites in ("polaris", [1], 1):
        with pytest.raises(StoreConfigError, match="list of strings"):
            Store("sites", LocalConnector(), sites=sites)  # type: ignore[arg-type]
        with pytest.raises(StoreConfigError, match="list of strings"):
            StoreConfig(name="sites", connector=ConnectorConfig(kind="local"), sites=sites)  # type: ignore[arg-type]
    nowhere = Store("sites", FileConnector(str(tmp_path)), sites=[])
    config = nowhere.config()
    config.write_toml(tmp_path / "store.toml")
    assert StoreConfig.from_toml(tmp_path / "store.toml").sites == []
    with pytest.raises(SitePolicyError, match="allowed=none"):
        nowhere.get(nowhere.put("x"))
    nowhere.close(clear=True)


# Producers.

DEMAND = """
import pickle, sys
from proxystore_rs import trust
from proxystore_rs.proxy import resolve, ProxyResolveError
from proxystore_rs.exceptions import UntrustedError
{setup}
plain, future, trap, inline = pickle.loads(sys.stdin.buffer.read())
def attempt(what):
    try: print("ok", what())
    except ProxyResolveError as error: print(type(error.cause).__name__, error.cause)
    except Exception as error: print(type(error).__name__, error)
attempt(lambda: resolve(pickle.loads(plain)))
attempt(lambda: resolve(pickle.loads(inline)))
attempt(lambda: pickle.loads(future).result(timeout=60))
attempt(lambda: resolve(pickle.loads(trap)))
"""


class Trap:
    """A serializer that tells when it is unpickled."""

    def __call__(self, data: Any) -> Any:
        return pickle.loads(data)

    def __reduce__(self) -> Any:
        return print, ("unpickled",)


@pytest.mark.parametrize(
    ("setup", "variable", "expected"),
    [
        ("", "ab" * 32, "UntrustedError"),
        ("trust.require_producers([])", "", "UntrustedError"),
        ("trust.require_producers([bytes(32)])", "", "UntrustedError"),
        ("", "nonsense", "StoreConfigError"),
        ("trust.require_producers(None)", "ab" * 32, "ok"),
    ],
)
def test_a_process_may_demand_producers(
    make_store: Callable[..., Store[Any]], setup: str, variable: str, expected: str
) -> None:
    store = make_store("shm")
    future: Future[str] = store.future()
    future.set_result("b")
    proxy = pickle.dumps(store.proxy("a"))
    trap = pickle.dumps(store.proxy("c", deserializer=Trap()))
    small = make_store("memory", inline_bytes=1000)
    sent = [proxy, pickle.dumps(future), trap, pickle.dumps(small.proxy("d"))]
    done = subprocess.run(
        [sys.executable, "-c", DEMAND.format(setup=setup)],
        input=pickle.dumps(sent),
        capture_output=True,
        env={**os.environ, "PROXYSTORE_PRODUCERS": variable},
        timeout=300,
        check=False,
    )
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0, done.stderr.decode()
    if expected == "ok":
        assert [line[:4] for line in lines[:3]] == ["ok N", "ok N", "ok b"], lines
        assert "unpickled" in lines
        return
    assert [line.split(" ")[0] for line in lines] == [expected] * 4, lines


def test_keys_of_producers_are_checked() -> None:
    for keys in (["ab"], [b"ab"], ["g" * 64], "ab" * 32, bytes(32)):
        with pytest.raises(ValueError, match="key"):
            trust.require_producers(keys)  # type: ignore[arg-type]


# Credentials.

USER, PASSWORD = "ada-of-the-lab", "hush-hush"


def test_nothing_that_is_shown_has_user_or_password(tmp_path: Path) -> None:
    at = f"{USER}:{PASSWORD}@127.0.0.1:1"
    options = {"port": 1, "username": USER, "password": PASSWORD, "share_credentials": True}
    redis = ConnectorConfig(kind="redis", options=options)
    of_part = ConnectorConfig(kind="multi", options={"a": ("redis", options, {})})
    shown = [repr(redis), repr(StoreConfig(name="s", connector=of_part)), str(of_part)]
    elsewhere = Policy(host_pattern="nowhere")
    dormant = {"a": ("redis", options, elsewhere.as_dict())}
    multi = MultiConnector({"b": (FileConnector(str(tmp_path)), Policy())}, dormant)
    with Store("part", multi, register=True, metrics=True) as store:
        proxy = store.proxy("x", populate_target=False)
        for thing in (store, multi, store.config(), get_factory(proxy), store.metrics):
            shown += [repr(thing), str(thing)]
        shown += [repr(proxy), to_prometheus()]
    for make in (
        redis.get_connector,
        lambda: ConnectorConfig(kind="redis", option=options),  # type: ignore[call-arg]
        lambda: StoreConfig(name="s", connector=[options]),  # type: ignore[arg-type]
        lambda: StoreConfig(name=options, connector=redis),  # type: ignore[arg-type]
        lambda: RedisConnector(**options),  # type: ignore[arg-type]
        lambda: RedisConnector.from_url(f"redis://{at}"),
        lambda: RedisConnector.from_url(f"redis://{at}/none"),
        lambda: RedisConnector.from_url(f"reddis://{at}"),
        lambda: RedisConnector.from_url(f"redis:/{at}"),
        lambda: RedisConnector.from_url(f"redis://{at}x"),
        lambda: open_store(f"redis://{at}/0"),
        lambda: open_store(f"reddis://{at}/0"),
        lambda: open_store(f"redis:/{at}/0"),
        lambda: open_store(f"multi:a=redis://{at}/0;b"),
    ):
        with pytest.raises((OSError, ValueError, TypeError)) as caught:
            make()
        error: BaseException | None = caught.value
        while error is not None:
            shown.append(f"{error!r} {error}")
            error = error.__cause__ or error.__context__
    for text in shown:
        assert USER not in text, text
        assert PASSWORD not in text, text


def test_warnings_are_errors_here() -> None:
    """Else a connector that is not known would pass unseen in these tests."""
    with pytest.raises(trust.UntrustedImportWarning):
        warnings.warn("x", trust.UntrustedImportWarning, stacklevel=1)

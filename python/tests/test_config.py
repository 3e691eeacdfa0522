"""Configurations are checked, can be written and read, and name connectors."""

from __future__ import annotations

import copy
import json
import pathlib
import pickle
import sys
import types
from typing import Any

import pytest

from proxystore_rs.connectors.local import LocalConnector
from proxystore_rs.exceptions import StoreConfigError
from proxystore_rs.store.config import ConnectorConfig, StoreConfig

LOCAL = ConnectorConfig(kind="local")
LOCAL_PATH = "proxystore_rs.connectors.local.LocalConnector"


def some_config(**fields: Any) -> StoreConfig:
    return StoreConfig(**{"name": "s", "connector": LOCAL, **fields})


def serializer(obj: Any) -> bytes:
    return json.dumps(obj).encode()


class Custom(LocalConnector):
    """A connector with its own way to be built."""

    def __init__(self, *args: Any, made_by: str = "init") -> None:
        super().__init__(*args)
        self.made_by = made_by

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Custom:
        return cls(made_by=f"from_config {config['by']}")

    class Nested(LocalConnector):
        """A class within a class."""


def test_defaults() -> None:
    assert some_config().model_dump() == {
        "name": "s",
        "connector": {"kind": "local", "options": {}},
        "serializer": None,
        "deserializer": None,
        "cache_size": 16,
        "metrics": False,
        "populate_target": True,
        "auto_register": False,
        "cache_bytes": 1 << 30,
        "read_only": False,
        "inline_bytes": 0,
        "codec": None,
        "seal": False,
        "compression": None,
        "checksums": None,
        "sites": None,
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", 1),
        ("name", None),
        ("connector", "local"),
        ("connector", {"kind": 5}),
        ("connector", {"kind": "local", "opts": {}}),
        ("connector", {}),
        ("serializer", "json.dumps"),
        ("cache_size", "5"),
        ("cache_size", -1),
        ("cache_size", True),
        ("cache_size", 1.0),
        ("metrics", 1),
        ("metrics", "yes"),
        ("cache_bytes", None),
    ],
)
def test_a_wrong_value_is_refused_by_field(field: str, value: Any) -> None:
    with pytest.raises(StoreConfigError, match=f"StoreConfig.{field}"):
        some_config(**{field: value})
    config = some_config()
    with pytest.raises(ValueError, match=f"StoreConfig.{field}"):
        setattr(config, field, value)
    assert config == some_config()


@pytest.mark.parametrize("options", [[1], {1: 2}, None, "a=1"])
def test_options_are_named(options: Any) -> None:
    with pytest.raises(StoreConfigError, match="strings as keys"):
        ConnectorConfig(kind="local", options=options)


def test_unknown_and_missing_fields_are_refused() -> None:
    with pytest.raises(StoreConfigError, match=r"no field 'cache'.*cache_size"):
        some_config(cache=5)
    with pytest.raises(StoreConfigError, match="needs the field 'connector'"):
        StoreConfig(name="s")  # type: ignore[call-arg]
    with pytest.raises(StoreConfigError, match="no field 'nope'"):
        some_config().nope = 1
    with pytest.raises(TypeError):
        ConnectorConfig("local")  # type: ignore[call-arg]


def test_equality_repr_and_hash() -> None:
    assert some_config() == some_config()
    assert some_config() != some_config(cache_size=1)
    assert some_config() != LOCAL
    assert repr(LOCAL) == "ConnectorConfig(kind='local', options={})"
    assert repr(some_config()).startswith("StoreConfig(name='s', connector=ConnectorConfig(kind=")
    with pytest.raises(TypeError, match="unhashable"):
        hash(LOCAL)


def test_numpy_integers_are_integers() -> None:
    np = pytest.importorskip("numpy")
    assert type(some_config(cache_size=np.int64(3)).cache_size) is int


def test_copies_are_independent() -> None:
    options = {"a": [1]}
    config = some_config(connector=ConnectorConfig(kind="x.Y", options=options))
    options["b"] = [2]
    assert "b" not in config.connector.options
    config.model_dump()["connector"]["options"]["a"].append(2)
    assert config.connector.options == {"a": [1]}
    assert config.model_copy(update={"name": "t"}).name == "t"
    with pytest.raises(StoreConfigError):
        config.model_copy(update={"name": 1})
    for same in (copy.deepcopy(config), pickle.loads(pickle.dumps(config)), config.model_copy()):
        assert same == config
        assert same is not config
    config.model_copy(deep=True).connector.options["a"].append(3)
    assert config.connector.options == {"a": [1]}


def test_fields_can_be_set_and_defaults_stay() -> None:
    config = some_config()
    config.cache_size = 5
    config.connector.options["x"] = 1
    assert config.cache_size == 5
    assert some_config().cache_size == 16
    assert ConnectorConfig(kind="local").options == {}
    LOCAL.options.clear()


@pytest.mark.parametrize("kind", ["local", "Local", "LOCALCONNECTOR", "LocalConnector", LOCAL_PATH])
def test_kinds_of_the_local_connector(kind: str) -> None:
    config = ConnectorConfig(kind=kind)
    assert config.get_connector_type() is LocalConnector
    assert isinstance(config.get_connector(), LocalConnector)


@pytest.mark.parametrize("kind", ["nope", "", "a.b.C", "proxystore_rs.connectors.local.Nope"])
def test_unknown_kinds_are_a_configuration_error(kind: str) -> None:
    with pytest.raises(StoreConfigError, match="Unknown connector type"):
        ConnectorConfig(kind=kind).get_connector_type()


@pytest.mark.parametrize("kind", ["os.path", "os.path.join", "collections.OrderedDict"])
def test_what_is_no_connector_is_refused(kind: str) -> None:
    with pytest.raises(StoreConfigError, match="not a connector class"):
        ConnectorConfig(kind=kind).get_connector_type()


def test_a_module_that_lacks_a_dependency_says_so(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needy_connector.py").write_text("import a_library_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_library_that_is_not_there"):
        ConnectorConfig(kind="needy_connector.Needy").get_connector_type()


def test_paths_of_the_first_implementation_find_our_connectors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "proxystore"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "proxystore", None)
    config = ConnectorConfig(kind="proxystore.connectors.local.LocalConnector")
    assert config.get_connector_type() is LocalConnector


def test_connectors_are_built_by_from_config() -> None:
    config = ConnectorConfig(kind=f"{__name__}.Custom", options={"by": "us"})
    connector = config.get_connector()
    assert isinstance(connector, Custom)
    assert connector.made_by == "from_config us"
    assert ConnectorConfig(kind=f"{__name__}.Custom.Nested").get_connector_type() is Custom.Nested


def test_a_wrong_option_is_named() -> None:
    with pytest.raises(TypeError, match="bad"):
        ConnectorConfig(kind="local", options={"bad": 1}).get_connector()


def test_toml_round_trip(tmp_path: pathlib.Path) -> None:
    options = {"host": 'é"\n\\', "port": 1, "x": 1.5, "on": True, "l": [1, [2]], "t": {"a b": {}}}
    config = some_config(
        connector=ConnectorConfig(kind="redis", options=options), cache_size=3, read_only=True
    )
    path = tmp_path / "new" / "store.toml"
    config.write_toml(path)
    assert StoreConfig.from_toml(path) == config
    assert StoreConfig.from_toml(str(path)) == config
    assert "serializer" not in path.read_text()


@pytest.mark.parametrize(
    "text",
    [
        "name = 's'\nfoo = 1\n[connector]\nkind = 'local'",
        "name = 's'\ncache_size = '5'\n[connector]\nkind = 'local'",
        "name = 's'\n[connector]\nkind = 'local'\nport = 1",
        "name = 's'",
        "name ==",
    ],
)
def test_wrong_toml_is_a_value_error(tmp_path: pathlib.Path, text: str) -> None:
    path = tmp_path / "store.toml"
    path.write_text(text)
    with pytest.raises(ValueError):
        StoreConfig.from_toml(path)


def test_functions_cannot_be_written(tmp_path: pathlib.Path) -> None:
    with pytest.raises(TypeError, match="cannot be written"):
        some_config(serializer=serializer).write_toml(tmp_path / "store.toml")
    assert not (tmp_path / "store.toml").exists()
    with pytest.raises(TypeError, match=r"connector.options.lock cannot be written"):
        some_config(connector=ConnectorConfig(kind="x.Y", options={"lock": object()})).write_toml(
            tmp_path / "store.toml"
        )
    assert not list(tmp_path.iterdir())


def test_bridge_names_a_python_connector_by_its_path() -> None:
    config = some_config(connector=ConnectorConfig(kind="local", options={"o": 1}))
    assert config._native() == ("s", f"python:{LOCAL_PATH}", {"o": 1}, {}, None)


def test_bridge_carries_what_differs_from_the_defaults() -> None:
    config = some_config(
        connector=ConnectorConfig(kind=LOCAL_PATH),
        serializer=serializer,
        cache_size=0,
        cache_bytes=7,
        metrics=True,
        populate_target=False,
        auto_register=True,
        read_only=True,
    )
    name, url, options, settings, extension = config._native()
    assert settings == {
        "cache_entries": 0,
        "cache_bytes": 7,
        "metrics": True,
        "populate_target": False,
        "auto_register": True,
        "read_only": True,
    }
    assert extension is not None
    assert pickle.loads(extension) == {"serializer": serializer}
    assert StoreConfig._from_native(name, url, options, settings, extension) == config


def test_bridge_carries_functions_of_a_script() -> None:
    pytest.importorskip("cloudpickle")
    config = some_config(deserializer=lambda data: bytes(data) + b"!")
    again = StoreConfig._from_native(*config._native())
    assert again.deserializer is not None
    assert again.deserializer(b"a") == b"a!"


def test_bridge_asks_native_connectors_for_their_url(monkeypatch: pytest.MonkeyPatch) -> None:
    class MemoryConnector(LocalConnector):
        _scheme = "memory"

        @staticmethod
        def _to_url(options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
            return f"memory://{options['name']}", {"limit": 5}

        @staticmethod
        def _from_url(url: str, options: dict[str, Any]) -> dict[str, Any]:
            return {"name": url.removeprefix("memory://"), **options}

    module = types.ModuleType("proxystore_rs.connectors.memory")
    MemoryConnector.__module__ = module.__name__
    MemoryConnector.__qualname__ = "MemoryConnector"
    module.MemoryConnector = MemoryConnector  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)

    config = some_config(connector=ConnectorConfig(kind="memory", options={"name": "m"}))
    assert config._native() == ("s", "memory://m", {"limit": 5}, {}, None)
    again = StoreConfig._from_native(*config._native())
    assert again.connector.get_connector_type() is MemoryConnector
    assert again.connector.options == {"name": "m", "limit": 5}

    class Derived(MemoryConnector):
        pass

    Derived.__qualname__ = "Derived"
    Derived.__module__ = module.__name__
    module.Derived = Derived  # type: ignore[attr-defined]
    derived = some_config(connector=ConnectorConfig(kind="proxystore_rs.connectors.memory.Derived"))
    assert derived._native()[1] == "python:proxystore_rs.connectors.memory.Derived"


def test_bridge_refuses_unknown_channels() -> None:
    with pytest.raises(StoreConfigError, match="carrier"):
        StoreConfig._from_native("s", "carrier://pigeon", {}, {}, None)


def test_is_a_field_of_pydantic_models() -> None:
    pydantic = pytest.importorskip("pydantic")
    model: Any = pydantic.create_model("Experiment", store=(StoreConfig, ...))
    made = model(store={"name": "s", "connector": {"kind": "local"}})
    assert made.store == some_config()
    assert made.model_dump() == {"store": some_config().model_dump()}
    with pytest.raises(pydantic.ValidationError, match="cache_size"):
        model(store={"name": "s", "connector": {"kind": "local"}, "cache_size": "x"})

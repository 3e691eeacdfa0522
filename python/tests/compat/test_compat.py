"""`import proxystore` gives the modules of this package, as the compat distribution promises."""

from __future__ import annotations

import base64
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from proxystore_rs.connectors.file import FileConnector
from proxystore_rs.store import Store

HERE = Path(__file__).parent
ROOT = HERE.parents[2]

Python = Callable[..., str]


def test_a_program_for_the_other_library_runs_unchanged(python: Python, tmp_path: Path) -> None:
    program = shutil.copy(HERE / "programs" / "library.py", tmp_path)
    assert python(program, cwd=tmp_path) == "done"


def test_every_module_is_the_same_object(python: Python) -> None:
    code = """
        import importlib, pkgutil, sys, warnings
        import proxystore, proxystore_rs
        warnings.simplefilter("ignore")
        names = ["proxystore_rs." + name for name in (
            "connectors.local", "connectors.file", "store.base", "store", "proxy", "utils.timer")]
        names += [m.name for m in pkgutil.walk_packages(proxystore_rs.__path__, "proxystore_rs.")]
        raising = ["ex", "p2p", *(
            f"endpoint.{name}" for name in ("endpoint", "messages", "serve", "storage"))]
        for name in names:
            if "._" in name or name.removeprefix("proxystore_rs.") in raising:
                continue
            alias = importlib.import_module(name.replace("proxystore_rs", "proxystore", 1))
            module = sys.modules[name]
            assert alias is module, name
            assert module.__name__ == module.__spec__.name == name
            assert module.__spec__.loader is module.__loader__
        listed = {m.name for m in pkgutil.walk_packages(proxystore.__path__, "proxystore.")}
        assert {"proxystore.store", "proxystore.store.base", "proxystore.proxy"} <= listed
        print(len(names))
    """
    assert int(python("-c", dedent(code))) > 30


@pytest.mark.parametrize("first", ["proxystore", "proxystore_rs"])
def test_either_name_may_come_first(python: Python, first: str) -> None:
    second = {"proxystore": "proxystore_rs", "proxystore_rs": "proxystore"}[first]
    code = f"""
        from {first}.store.base import Store as A
        from {second}.store import Store as B
        import proxystore.store.base, proxystore_rs.store.base
        assert A is B is proxystore.store.base.Store
        assert proxystore.store.base is proxystore_rs.store.base
    """
    python("-c", dedent(code))


def test_the_tools_of_the_import_system_work(python: Python) -> None:
    code = """
        import importlib, importlib.metadata, importlib.resources, importlib.util, inspect, runpy
        import sys
        import proxystore.utils.timer as timer
        from proxystore.store import Store

        assert importlib.util.find_spec("proxystore.utils.counter") is not None
        assert "proxystore.utils.counter" not in sys.modules
        assert importlib.util.find_spec("proxystore.no_such_module") is None
        assert importlib.reload(timer) is timer is sys.modules["proxystore.utils.timer"]
        assert "class Timer" in inspect.getsource(timer.Timer)
        assert inspect.getmodule(Store) is sys.modules["proxystore_rs.store.base"]
        assert importlib.resources.files("proxystore").joinpath("py.typed").is_file()
        assert importlib.resources.files("proxystore.store").joinpath("base.py").is_file()
        found = runpy.run_module("proxystore.utils.data")
        assert found["bytes_to_readable"](1001) == "1.001 KB"
        version = importlib.metadata.version("proxystore")
        import proxystore
        assert version == proxystore.__version__ and version.startswith("1.1.0+")
    """
    python("-c", dedent(code))
    python("-m", "proxystore.utils.data")


def test_extensions_are_the_same_modules_too(python: Python, tmp_path: Path) -> None:
    package = tmp_path / "proxystore_ex" / "connectors"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    # As the extensions do, it imports the package that it extends.
    (package / "__init__.py").write_text("from proxystore.store import Store\n")
    code = """
        from proxystore.ex.connectors import Store
        import proxystore.ex.connectors, proxystore_ex.connectors, proxystore_rs.ex.connectors
        assert proxystore.ex.connectors is proxystore_ex.connectors
        assert proxystore_rs.ex.connectors is proxystore_ex.connectors
        from proxystore_rs.store.base import Store as own
        assert Store is own
    """
    python("-c", dedent(code), cwd=tmp_path)


def test_threads_may_import_at_once(python: Python) -> None:
    code = """
        import sys, threading
        names = ["proxystore.store.base", "proxystore.store", "proxystore.store.metrics",
                 "proxystore.proxy", "proxystore.store.config", "proxystore.connectors.file"]
        barrier = threading.Barrier(len(names))
        found = []

        def load(name):
            barrier.wait()
            __import__(name)
            own = name.replace("proxystore", "proxystore_rs")
            found.append(sys.modules[name] is sys.modules[own])

        threads = [threading.Thread(target=load, args=(name,)) for name in names]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert found == [True] * len(names), found
    """
    for _ in range(5):
        python("-c", dedent(code))


def test_pickles_of_either_name_are_read_under_either(python: Python, tmp_path: Path) -> None:
    with Store("compat-pickles", FileConnector(str(tmp_path / "objects")), register=True) as store:
        proxy = base64.b64encode(pickle.dumps(store.proxy({"a": 1}))).decode()
        code = f"""
            import base64, pickle
            p = pickle.loads(base64.b64decode({proxy!r}))
            assert p == {{"a": 1}}
            from proxystore.connectors.file import FileKey
            from proxystore.store.config import StoreConfig
            by_old_name = b"cproxystore.connectors.file\\nFileKey\\n."
            assert pickle.loads(by_old_name) is FileKey
            values = FileKey("name"), StoreConfig, p.__proxy_factory__.store_config
            print(base64.b64encode(pickle.dumps(values)).decode())
        """
        key, cls, config = pickle.loads(base64.b64decode(python("-c", dedent(code))))
    assert type(key).__module__ == "proxystore_rs.connectors.file"
    assert isinstance(config, cls)
    assert config.name == "compat-pickles"


@pytest.mark.parametrize(
    ("module", "subject"),
    [
        ("globus.app", "Globus"),
        ("connectors.globus", "Globus connector"),
    ],
)
def test_what_is_not_there_yet_says_so(python: Python, module: str, subject: str) -> None:
    code = f"""
        try:
            import proxystore.{module}
        except ModuleNotFoundError as error:
            assert error.name.startswith("proxystore."), error.name
            print(error)
    """
    text = python("-c", dedent(code))
    assert subject in text
    assert "pip install proxystore==1.1.0" in text


def test_a_module_that_never_was_is_an_ordinary_error(python: Python) -> None:
    code = """
        try:
            import proxystore.no_such_module
        except ModuleNotFoundError as error:
            print(error)
    """
    assert python("-c", dedent(code)) == "No module named 'proxystore.no_such_module'"


def test_files_of_two_distributions_are_refused(
    install: Callable[[Path], Path], tmp_path: Path
) -> None:
    interpreter = install(tmp_path / "venv")
    (package,) = (tmp_path / "venv").rglob("proxystore/__init__.py")
    (package.parent / "globus").mkdir()
    (package.parent / "globus" / "__init__.py").touch()
    done = subprocess.run(
        [interpreter, "-c", "import proxystore"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "pip uninstall -y proxystore" in done.stderr


def test_there_is_a_module_for_each(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "scripts" / "compat-modules", tmp_path], check=True)
    committed = texts(ROOT / "python" / "compat" / "src" / "proxystore")
    del committed["__init__.py"]
    assert committed == texts(tmp_path), "run scripts/compat-modules"


def texts(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.py")}


def test_type_checkers_see_the_same_types(tmp_path: Path) -> None:
    sample = (HERE.parent / "typing" / "sample_plugin.py").read_text()
    (tmp_path / "sample.py").write_text(sample.replace("proxystore_rs", "proxystore"))
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nstrict = True\nplugins = proxystore.mypy_plugin\n"
        f"mypy_path = {ROOT}/python:{ROOT}/python/compat/src\n"
    )
    cache = ROOT / ".mypy_cache" / "tests-compat"
    command = [sys.executable, "-m", "mypy", "--cache-dir", cache, "sample.py"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{ROOT}/python/compat/src"},  # where the plugin is
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr

"""The package can be imported by many threads at once: its imports make no circle."""

from __future__ import annotations

import ast
import pickle
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import proxystore_rs
from proxystore_rs.store import Store
from proxystore_rs.store.ref import borrow

ROOT = Path(proxystore_rs.__file__).parent
NAMES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
}


def parents(name: str) -> set[str]:
    parts = name.split(".")
    return {".".join(parts[:end]) for end in range(1, len(parts))}


class TopLevel(ast.NodeVisitor):
    """Collects what a module imports when it is imported."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def visit_Import(self, node: ast.Import) -> None:
        self.found.update(alias.name for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.level == 0 and node.module is not None, "imports are absolute"
        self.found.add(node.module)
        self.found.update(f"{node.module}.{alias.name}" for alias in node.names)

    def visit_If(self, node: ast.If) -> None:
        test = node.test
        if not (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"):
            self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        pass  # runs later


def test_imports_make_no_circle() -> None:
    graph = {}
    for name, path in NAMES.items():
        visitor = TopLevel()
        visitor.visit(ast.parse(path.read_text()))
        wanted = {module for module in visitor.found if module in NAMES and module != name}
        for module in tuple(wanted):
            wanted |= parents(module)
        # Importing a module imports its package first; a package that imports its modules would
        # close the circle.
        graph[name] = (wanted - {name} - parents(name)) | parents(name)
        assert not any(module.startswith(f"{name}.") for module in wanted), (
            f"{name} imports its own modules: use proxystore_rs._lazy"
        )
    TopologicalSorter(graph).prepare()  # raises on a circle


def test_packages_offer_their_modules_and_refuse_other_names() -> None:
    code = "import proxystore_rs.store as store; store.base.Store is store.Store or 1 / 0; "
    code += "assert not hasattr(store, 'nothing') and 'open_store' in dir(store)"
    subprocess.run([sys.executable, "-c", code], check=True)


_FIRST = """
import pickle, sys, threading
data = [bytes.fromhex(text) for text in sys.argv[1:]]
barrier = threading.Barrier(8)
def work(number):
    barrier.wait()
    arrived = pickle.loads(data[number % len(data)])
    arrived.done() if hasattr(type(arrived), "set_result") else len(arrived)
threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def test_the_first_proxies_of_a_process_may_arrive_in_many_threads(make_store: Any) -> None:
    store: Store[Any] = make_store("shm")
    future = store.future()
    filled = store.future()
    filled.set_result([1, 2])
    owner = store.owned_proxy([1, 2])
    sent = [store.proxy([1, 2]), future, filled.proxy(), borrow(owner)]
    data = [pickle.dumps(item).hex() for item in sent]
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", _FIRST, *data], capture_output=True, text=True)
        assert done.stderr == ""

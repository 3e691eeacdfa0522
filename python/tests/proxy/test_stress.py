"""Hostile use, in processes of their own: whatever happens, no crash."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

SCRIPTS = {
    "target replaced while it is used": """
        from proxystore_rs.proxy import Proxy
        class Evil:
            def __del__(self): pass
            def __getattribute__(self, name):
                del p.__proxy_wrapped__
                return name
            def __add__(self, other):
                del p.__proxy_wrapped__
                return 1
            def __len__(self):
                p.__proxy_wrapped__ = Evil()
                return 1
            def __eq__(self, other):
                del p.__proxy_wrapped__
                del p.__proxy_factory__
                p.__proxy_factory__ = Evil
                return True
            __hash__ = None
            def __iadd__(self, other):
                del p.__proxy_wrapped__
                return self
            def __repr__(self):
                del p.__proxy_wrapped__
                return 'evil'
            def __call__(self, *a):
                del p.__proxy_wrapped__
                return a
        p = Proxy(Evil)
        for _ in range(1000):
            p.x, p + 1, len(p), p == 1, p(1, 2), str(p)
            p.__proxy_wrapped__
            repr(p)
            q = p
            q += 1
    """,
    "factory that lets go of its proxy": """
        from proxystore_rs.proxy import Proxy
        def factory():
            box.clear()
            return [1]
        for _ in range(1000):
            box = [Proxy(factory)]
            assert len(box[0]) == 1
            box = [Proxy(factory)]
            assert box[0] + [2] == [1, 2]
    """,
    "threads that resolve, un-resolve and replace": """
        import threading
        from proxystore_rs.proxy import Proxy
        p = Proxy(lambda: [1, 2, 3])
        def use():
            for _ in range(20000):
                assert len(p) == 3 and p[0] == 1
                p.__proxy_wrapped__ = [1, 5, 6]
                del p.__proxy_wrapped__
        threads = [threading.Thread(target=use) for _ in range(4)]
        for t in threads: t.start()
        for t in threads: t.join()
    """,
    "uninitialised": """
        import gc, pickle, copy, weakref
        from proxystore_rs.proxy import Proxy, ProxyResolveError
        for use in (len, str, hash, list, pickle.dumps, copy.copy, bool, int, dir, iter, next,
                    memoryview, vars, callable, repr, weakref.ref, lambda p: p.x, lambda p: p(),
                    lambda p: setattr(p, 'x', 1), lambda p: p + p, lambda p: isinstance(p, int)):
            p = Proxy.__new__(Proxy)
            try: use(p)
            except ProxyResolveError: pass
            del p
        gc.collect()
    """,
    "collection in the middle of everything": """
        import gc
        from proxystore_rs.proxy import Proxy
        gc.set_threshold(1)
        for _ in range(300):
            p = Proxy(lambda: [p])
            len(p), repr(p.__proxy_factory__), p == [1]
    """,
    "chain": """
        from proxystore_rs.proxy import Proxy
        p = None
        for _ in range(300_000): p = Proxy(list, target=[p])
        del p
        p = None
        for _ in range(300_000): p = Proxy(lambda p=p: p)
        del p
    """,
    "exit while others resolve": """
        import threading, time
        from proxystore_rs.proxy import Proxy
        p = Proxy(lambda: time.sleep(30))
        for _ in range(4): threading.Thread(target=lambda: bool(p), daemon=True).start()
        time.sleep(0.05)
    """,
    "error at exit": """
        from proxystore_rs.proxy import Proxy, ProxyResolveError
        class Late:
            def __del__(self):
                try: len(Proxy(lambda: 1 / 0))
                except Exception: pass
        keep = Late()
        import sys
        sys.keep = keep
    """,
    "wrong arguments": """
        from proxystore_rs import _core
        from proxystore_rs.proxy import Proxy
        for method in ('__array_ufunc__', '__array_function__', '__torch_function__', '__setattr__',
                       '__exit__', '__round__'):
            for arguments in ((), (1,), (1, 2, 3)):
                try: getattr(Proxy, method)(Proxy(int), *arguments)
                except (TypeError, AttributeError): pass
        for arguments in ((), (1, 2, 3, 4), (int, None, 'x')):
            try: _core._proxy(*arguments)
            except TypeError: pass
        for name in (1, None, Proxy(str)):
            try: object.__getattribute__(Proxy(int), name)
            except TypeError: pass
    """,
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_crash(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(SCRIPTS[name])],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stderr[-4000:]}"
    assert "Traceback" not in done.stderr

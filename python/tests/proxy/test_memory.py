"""Nothing leaks: over a million proxies, in a process of their own."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import weakref
from typing import Any

from proxystore_rs.proxy import Proxy, resolve


class Node:
    pass


def test_one_reference_to_the_target() -> None:
    target = Node()
    before = sys.getrefcount(target)
    p = Proxy(lambda: target, target=target)
    assert sys.getrefcount(target) == before + 1
    p.x = 1
    assert p.x == 1
    str(p)
    assert hash(p)
    assert p == p
    assert sys.getrefcount(target) == before + 1
    del p
    gc.collect()
    assert sys.getrefcount(target) == before


def test_cycles_are_collected() -> None:
    def through_target() -> tuple[Any, Any]:
        node = Node()
        p = Proxy(lambda: node)
        p.p = p
        return weakref.ref(node), weakref.ref(p)

    def through_factory() -> tuple[Any, Any]:
        node = Node()
        p = Proxy(lambda: (node, p))
        return weakref.ref(node), weakref.ref(p)

    def through_itself() -> tuple[Any, Any]:
        node = Node()
        p = Proxy(lambda: node)
        object.__setattr__(p, "itself", p)
        resolve(p)
        return weakref.ref(node), weakref.ref(p)

    for make in (through_target, through_factory, through_itself):
        references = make()
        gc.collect()
        assert [reference() for reference in references] == [None, None]


SCRIPT = """
    import copy, gc, operator, pickle, resource, sys
    import numpy as np
    from proxystore_rs.proxy import Proxy, ProxyResolveError, UnwantedResolveError, no_resolve

    class Sub(Proxy):
        pass

    def five(): return 5
    def items(): return [1, 2]
    def array(): return np.ones(3)
    def fails(): return 1 / 0

    def expect(error, use):
        try:
            use()
        except error:
            return
        raise AssertionError(error)

    def churn():
        p, q, a = Proxy(items), Proxy(five, cache_defaults=True, target=5), Proxy(array)
        q += 1; q **= 2; p += [3]; p == q; q + 1; 1 + q; pow(2, q, 7); hash(q); str(p); repr(p)
        p[0]; p[0] = 3; del p[0]; len(p); 3 in p; isinstance(p, list); f'{q:03d}'; list(p); p.append(1)
        r = pickle.loads(pickle.dumps(q)); hash(r); copy.copy(r); copy.deepcopy(r)
        r.__proxy_default_class__ = 'builtins:int'; r.__class__
        np.add(a, 1); np.sum(a); np.ones(3) + a; memoryview(a); np.asarray(q); np.concatenate([a, a])
        s = Sub(items); s.append(2); object.__setattr__(s, 'x', s)
        Proxy(lambda: dict)(a=1); Proxy[int](five); iter(p); round(q); Proxy(iter, target=iter([1])).__next__()
        expect(ProxyResolveError, lambda: Proxy(fails) + 1)
        expect(AttributeError, lambda: q.nope)
        expect(TypeError, lambda: hash(Proxy(items, cache_defaults=True, target=[])))
        with no_resolve():
            expect(UnwantedResolveError, lambda: len(Proxy(items)))

    def level():
        gc.collect()
        return (len(gc.get_objects()), sys.getallocatedblocks(),
                resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

    for _ in range(300): churn()
    for _ in range(100_000): Proxy(five) + 1
    objects, blocks, kilobytes = level()
    for _ in range(3000): churn()
    for _ in range(1_000_000): Proxy(five) + 1
    for _ in range(100_000): pickle.loads(pickle.dumps(Proxy(five)))
    new_objects, new_blocks, new_kilobytes = level()
    assert new_objects - objects < 50, new_objects - objects
    assert new_blocks - blocks < 500, new_blocks - blocks
    assert new_kilobytes - kilobytes < 4096, new_kilobytes - kilobytes
"""


def test_a_million_proxies() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

"""Objects of more than 4 GiB: PROXYSTORE_TEST_LARGE=1 runs them, and they take up to 12 GB of memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from proxystore_rs.store import Store

pytestmark = pytest.mark.skipif(
    os.environ.get("PROXYSTORE_TEST_LARGE") != "1", reason="PROXYSTORE_TEST_LARGE is not 1"
)

LENGTH = 5_000_000_000 // 8
END = (1 << 20) // 8


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("file", {}), ("shm", {"checksums": True}), ("file", {"seal": True})],
    ids=["file", "shared memory with checksums", "sealed file"],
)
def test_an_array_of_five_gigabytes(
    make_store: Callable[..., Store[Any]], kind: str, settings: dict[str, Any]
) -> None:
    store = make_store(kind, cache_size=0, **settings)
    array = np.zeros(LENGTH, dtype="<i8")
    array[::1_000_003] = 5
    array[-END:] = np.arange(END)
    proxy = store.proxy(array, populate_target=False)
    expected = int(array.sum())
    del array
    assert len(proxy) == LENGTH
    view = store.view(proxy)
    np.testing.assert_array_equal(view[-END:], np.arange(END))
    assert int(proxy.sum()) == expected

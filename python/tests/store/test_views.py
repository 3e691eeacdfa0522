"""Views: they give what the whole object gives, and read no more than that takes."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from proxystore_rs.exceptions import SerializationError, UnsupportedOperationError
from proxystore_rs.proxy import Proxy, is_resolved
from proxystore_rs.store import Store
from proxystore_rs.store.exceptions import ProxyResolveMissingKeyError
from proxystore_rs.store.view import View


def same(found: Any, expected: Any) -> None:
    """Values, types and shapes are equal, and the memory is nobody else's."""
    assert type(found) is type(expected)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)
    if isinstance(found, np.ndarray):
        assert found.flags.writeable


def test_arrays_on_every_channel(store: Store[Any]) -> None:
    array = np.arange(60_000, dtype="<i4").reshape(300, 200)
    view = store.view(store.put(array))
    assert (view.shape, view.dtype, view.ndim, view.nbytes) == ((300, 200), "<i4", 2, 240_000)
    assert len(view) == 300
    for index in (3, slice(10, 20), (..., -1), (slice(None, None, -7), [5, 1]), ()):
        same(view[index], array[index])
    same(view.load(), array)
    same(np.asarray(view), array)
    same(np.asarray(view, dtype="f8"), array.astype("f8"))
    part = view[0]
    part[:] = -1  # private
    same(view[0], array[0])


def random_index(random: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """An index of an array of this shape; some are not."""

    def bound(length: int) -> int | None:
        return None if random.random() < 0.3 else int(random.integers(-length - 2, length + 3))

    def positions(length: int) -> Any:
        low, high = (-length, length) if length and random.random() < 0.95 else (-9, 9)
        kind = random.integers(4)
        if kind == 0:
            return random.random(length) < 0.5  # a mask
        sides = (int(random.integers(4)),) if kind == 1 else tuple(random.integers(1, 4, kind - 1))
        found = random.integers(low, high, sides)
        return found.tolist() if random.random() < 0.5 else found

    items: list[Any] = []
    lists = 0
    for length in shape[: int(random.integers(len(shape) + 1))]:
        choice = random.random()
        if choice < 0.25 and length:
            items.append(int(random.integers(-length, length)))
        elif choice < 0.35 and not lists:
            items.append(positions(length))
            lists += 1
        else:
            step = int(random.integers(1, 4)) * int(random.choice([1, -1]))
            items.append(
                slice(bound(length), bound(length), step if random.random() < 0.6 else None)
            )
    for extra in (None, None, ...):
        if random.random() < 0.15:
            items.insert(int(random.integers(len(items) + 1)), extra)
    if random.random() < 0.03:
        items.append(0)  # one too many, perhaps
    return items[0] if len(items) == 1 and random.random() < 0.5 else tuple(items)


def test_random_indices_give_what_numpy_gives(make_store: Callable[..., Store[Any]]) -> None:
    store = make_store("memory")
    random = np.random.default_rng(15)
    dtypes = ["|b1", "|i1", "<u2", "<i4", "<f8", "<c16", "<f2"]
    compared = 0
    for _ in range(300):
        shape = tuple(int(side) for side in random.integers(0, 7, random.integers(0, 5)))
        array = np.asarray(random.integers(0, 100, shape)).astype(random.choice(dtypes))
        if random.random() < 0.4:
            array = np.asfortranarray(array)
        view = store.view(store.put(array))
        for _ in range(10):
            index = random_index(random, shape)
            try:
                expected = array[index]
            except IndexError as error:
                with pytest.raises(IndexError) as caught:
                    view[index]
                assert str(caught.value) == str(error)
                continue
            same(view[index], expected)
            compared += 1
    assert compared > 2000


def test_indices_that_are_refused(make_store: Callable[..., Store[Any]]) -> None:
    store = make_store("memory")
    view = store.view(store.put(np.zeros((4, 5))))
    for index in (([0, 1], [0, 1]), np.zeros((4, 5), bool), True, np.True_, (np.True_, 0)):
        with pytest.raises(UnsupportedOperationError, match="load"):
            view[index]
    for wrong in ("x", 1.0, [0.5], (0, 0, 0), (..., ...), 4, -5, np.zeros(3, bool)):
        with pytest.raises(IndexError):
            view[wrong]
    with pytest.raises(TypeError, match="unsized"):
        len(store.view(store.put(np.array(1.0))))


def test_bytes_and_text(store: Store[Any]) -> None:
    data = bytes(range(256)) * 100
    view = store.view(store.put(data))
    assert (len(view), view.nbytes, view.shape, view.dtype) == (25_600, 25_600, (25_600,), "u1")
    assert (view[5], view[-1]) == (5, 255)
    for part in (slice(3, 9), slice(-5, None), slice(9, 3), slice(900, 100, -7), slice(7, 8, 3)):
        assert view[part] == data[part]
    assert type(view[1:3]) is bytes
    assert bytes(view) == data
    for index in (25_600, -25_601):
        with pytest.raises(IndexError):
            view[index]
    with pytest.raises(TypeError):
        view["a"]

    text = store.view(store.put("grüße"))
    assert (len(text), text.nbytes, text[2], text[1:4]) == (5, 7, "ü", "rüß")
    assert text.load() == "grüße"
    assert not hasattr(text, "shape")


def test_other_objects_say_what_to_do(store: Store[Any]) -> None:
    view = store.view(store.put({"a": [1, 2]}))
    for use in (lambda: view["a"], lambda: view[0:1], lambda: view.shape, lambda: view.columns):
        with pytest.raises(SerializationError, match=r"pickle.*load\(\)"):
            use()
    assert view.load() == {"a": [1, 2]}


def test_proxies_are_not_resolved(store: Store[Any]) -> None:
    array = np.arange(1000.0)
    proxy = store.proxy(array, populate_target=False)
    for view in (store.view(proxy), Proxy.view(proxy)):
        same(view[10:12], array[10:12])
    arrived = pickle.loads(pickle.dumps(proxy))
    same(Proxy.view(arrived)[-1], array[-1])
    assert not is_resolved(proxy) and not is_resolved(arrived)


def test_view_of_a_proxy_is_the_targets(make_store: Callable[..., Store[Any]]) -> None:
    proxy = make_store("memory").proxy(np.arange(4, dtype="<i8"))
    same(proxy.view("<u8"), np.arange(4, dtype="<u8"))
    assert not hasattr(Proxy(lambda: 1), "view")
    with pytest.raises(TypeError, match="no stored object"):
        Proxy.view(Proxy(lambda: 1))
    with pytest.raises(TypeError):
        Proxy.view(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        View(None, 3)


def test_nothing_is_read_before_it_is_used(make_store: Callable[..., Store[Any]]) -> None:
    store = make_store("memory")
    key = store.put(np.zeros((2, 3)))
    view = store.view(key)
    assert "shape" not in repr(view)
    assert view.shape == (2, 3)
    assert "shape=(2, 3)" in repr(view) and "float64" in repr(view)
    store.evict(key)
    assert "key=" in repr(store.view(key))
    with pytest.raises(ProxyResolveMissingKeyError):
        len(store.view(key))
    with pytest.raises(ProxyResolveMissingKeyError):
        view[0]
    with pytest.raises(TypeError, match="send the proxy"):
        pickle.dumps(view)


def test_objects_at_hand_and_inside_references(make_store: Callable[..., Store[Any]]) -> None:
    store = make_store("memory", inline_bytes=1000)
    small = store.proxy(np.arange(10))
    same(store.view(small)[3:5], np.arange(10)[3:5])
    large = store.proxy(np.arange(1000))
    store.evict(large.__proxy_factory__.key)  # type: ignore[attr-defined]
    same(store.view(large)[3:5], np.arange(1000)[3:5])


def test_futures(store: Store[Any]) -> None:
    future: Any = store.future()
    with ThreadPoolExecutor(1) as pool:
        row = pool.submit(lambda: store.view(future.proxy())[1])
        future.set_result(np.eye(3))
        same(row.result(timeout=60), np.eye(3)[1])
    failed: Any = store.future()
    failed.set_exception(ZeroDivisionError("no result"))
    with pytest.raises(ZeroDivisionError, match="no result"):
        len(store.view(failed.proxy()))


def test_iteration(make_store: Callable[..., Store[Any]]) -> None:
    store = make_store("memory")
    array = np.arange(12).reshape(4, 3)
    np.testing.assert_array_equal(list(store.view(store.put(array))), array)
    assert list(store.view(store.put(b"abc"))) == [97, 98, 99]
    assert list(store.view(store.put("abc"))) == ["a", "b", "c"]
    assert list(store.view(store.put(np.zeros((0, 3))))) == []


def test_loading_tells_how_far_it_is(shared_store: Store[Any]) -> None:
    array = np.random.default_rng(1).random(4_000_000)
    view = shared_store.view(shared_store.put(array))
    for parallel in (1, 4):
        told: list[tuple[int, int]] = []

        def tell(done: int, total: int, told: list[tuple[int, int]] = told) -> None:
            told.append((done, total))

        loaded = view.load(parallel=parallel, progress=tell)
        same(loaded, array)
        assert told == sorted(told)
        assert told[-1] == (32_000_000, 32_000_000)
        assert len(told) >= 4

        def give_up(done: int, total: int) -> None:
            raise TimeoutError(f"{done} of {total}")

        with pytest.raises(TimeoutError, match="of 32000000"):
            view.load(parallel=parallel, progress=give_up)
    with pytest.raises(ValueError, match="parallel"):
        view.load(parallel=0)


def test_a_store_with_a_serializer(make_store: Callable[..., Store[Any]]) -> None:
    store = make_store("memory", serializer=pickle.dumps, deserializer=pickle.loads)
    view = store.view(store.put([1, 2]))
    assert view.load() == [1, 2]
    with pytest.raises(SerializationError, match="serializer"):
        view[0]


def test_threads_share_a_view(shared_store: Store[Any]) -> None:
    array = np.arange(100_000).reshape(1000, 100)
    view = shared_store.view(shared_store.put(array))
    barrier = threading.Barrier(4)

    def sum_of(rows: slice) -> int:
        barrier.wait(60)
        return int(view[rows].sum())

    with ThreadPoolExecutor(4) as pool:
        sums = pool.map(sum_of, [slice(i, None, 4) for i in range(4)])
        assert sum(sums) == array.sum()


@pytest.mark.parametrize("library", ["pyarrow", "polars", "pandas"])
def test_columns_of_tables(store: Store[Any], library: str) -> None:
    module = pytest.importorskip(library)
    pytest.importorskip("pyarrow")
    columns = {"x": list(range(1000)), "label": ["a", "b"] * 500, "y": [0.5] * 1000}
    table = module.table(columns) if library == "pyarrow" else module.DataFrame(columns)
    view = store.view(store.put(table, codec="data"))
    assert view.columns == ["x", "label", "y"]
    assert (len(view), view.shape) == (1000, (1000, 3))
    for found, expected in ((view["label"], table["label"]), (view["x"], table["x"])):
        assert type(found) is type(expected)
        assert found.equals(expected)
    names = ["y", "x"]
    expected = table.select(names) if library == "pyarrow" else table[names]
    assert view[names].equals(expected)
    assert view.load().equals(table)
    with pytest.raises(KeyError):
        view["z"]
    with pytest.raises(KeyError if library == "pandas" else TypeError):
        view[0]
    with pytest.raises(TypeError, match="by name"):
        view[0:2]


def _levels(pd: Any) -> Any:
    return pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")])


def _frames() -> dict[str, Any]:
    pd = pytest.importorskip("pandas")
    base = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"], "c": [1.5, None, 3]})
    days = ["2026-11-20", "2026-11-21", "2026-11-23"]
    pairs = [("k", 1), ("k", 2), ("l", 1)]
    return {
        "several levels": base.set_index(pd.MultiIndex.from_tuples(pairs, names=["p", "q"])),
        "levels without names": base.set_index(pd.MultiIndex.from_tuples(pairs)),
        "texts": base.set_index(pd.Index(["r", "s", "t"], name="label")),
        "texts without name": base.set_index(pd.Index(["r", "s", "t"])),
        "times": base.set_index(pd.DatetimeIndex(days, tz="Europe/Berlin", name="when")),
        "a range": base.set_index(pd.RangeIndex(10, 16, 2)),
        "a column": base.set_index("a", drop=False),
        "numbered columns": pd.DataFrame(np.arange(6).reshape(3, 2), index=["r", "s", "t"]),
        "columns of two levels": pd.DataFrame(np.ones((3, 2)), columns=_levels(pd)),
        "no columns": pd.DataFrame(index=["r", "s"]),
    }


@pytest.mark.parametrize("kind", _frames())
def test_the_index_of_a_data_frame_is_no_column(
    make_store: Callable[..., Store[Any]], kind: str
) -> None:
    pd = pytest.importorskip("pandas")
    frame = _frames()[kind]
    store = make_store("file", codec="data")
    proxy = store.proxy(frame, populate_target=False)
    view = store.view(proxy)
    assert view.shape == proxy.shape == frame.shape
    assert view.columns == list(frame.columns)
    for label in frame.columns:
        pd.testing.assert_series_equal(view[label], frame[label])
        pd.testing.assert_frame_equal(view[[label]], frame[[label]])
    backwards = list(frame.columns)[::-1]
    pd.testing.assert_frame_equal(view[backwards], frame[backwards])
    pd.testing.assert_frame_equal(view.load(), frame)

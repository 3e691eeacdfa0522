"""Proxies that do not come from a store are told apart without resolving them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from proxystore_rs.exceptions import ProxyStoreFactoryError
from proxystore_rs.proxy import Proxy, is_resolved
from proxystore_rs.store.utils import get_key, resolve_async


@pytest.mark.parametrize("function", [get_key, resolve_async])
def test_a_proxy_without_a_store_is_an_error(function: Callable[[Any], Any]) -> None:
    proxy: Proxy[dict[str, int]] = Proxy(dict)
    with pytest.raises(ProxyStoreFactoryError, match="must contain a factory with type"):
        function(proxy)
    assert not is_resolved(proxy)

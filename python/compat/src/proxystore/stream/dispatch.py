from typing import TYPE_CHECKING

from proxystore_rs._alias import replace

if TYPE_CHECKING:
    from proxystore_rs.stream.dispatch import *

replace(__name__, "proxystore_rs")

"""A program that puts objects under a lease of a second, tells their keys, and does nothing more.

Started by tests, with the URL of a channel, to be killed.
"""

import pickle
import sys
import time
from datetime import datetime, timedelta

from proxystore_rs.store import open_store
from proxystore_rs.store.lifetimes import LeaseLifetime

if __name__ == "__main__":
    store = open_store(sys.argv[1])
    lease = LeaseLifetime(store, 3600)
    keys = [store.put("x", lifetime=lease), *store.put_batch(["y", b"z" * 300_000], lifetime=lease)]
    keys.append(store.put("added"))
    lease.add_key(keys[-1])
    lease.extend(datetime.now() + timedelta(seconds=1))
    print(pickle.dumps(keys).hex(), flush=True)
    time.sleep(600)

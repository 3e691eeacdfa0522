"""Publishers and subscribers under the names that `proxystore` gives them.

Those of Redis and ZeroMQ are ends of the native brokers of [`proxystore_rs.stream.brokers`][], which
have more settings there.
"""

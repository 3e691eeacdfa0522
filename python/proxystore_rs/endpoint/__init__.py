"""Endpoints: daemons that keep objects of a site and exchange them with other sites.

The daemon is a program of its own, `proxystore`, which `pip install 'proxystore-rs[endpoints]'`
installs beside Python. The modules here configure, start and ask it.
"""

"""Two sites behind NATs and the public network between them, in network namespaces of this host.

    site "A"                                   "public"                                  site "B"
    10.1.0.2 -- 10.1.0.1 [NAT] 203.0.113.2 -- 198.51.100.1, .2 -- 203.0.113.6 [NAT] 10.2.0.1 -- 10.2.0.2

Nothing leads out of the lab: packets that would leave it are counted where they are sent.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Literal, Self

import pytest

Site = Literal["A", "B"]
Place = Literal["A", "B", "public"]
Nat = Literal["independent", "symmetric", "cone", "no-udp"]
"""How a NAT treats UDP: one outer port for all destinations, or one for each; a full cone, which also
lets anybody in; or nothing at all passes."""

PUBLIC = ("198.51.100.1", "198.51.100.2")
"""Addresses of the public place."""
OUTER = {"A": "203.0.113.2", "B": "203.0.113.6"}
"""Addresses of the NATs, as the public network knows them."""
INNER = {"A": "10.1.0.2", "B": "10.2.0.2"}
"""Addresses of the sites' hosts."""

TOOLS = ("ip", "nft", "conntrack")

_NAMESPACES = Path("/run/netns")
_NAME = re.compile(r"natlab-(\d+)-\d+-[a-zA-Z]+")
_numbers = itertools.count()

# Counts what a process sends to anywhere else, and every question for a name.
_WATCH = """
table ip watch {
  counter leaks { }
  chain output {
    type filter hook output priority 0;
    oifname "lo" udp dport != 53 accept
    udp dport { 53, 853, 5353 } counter name leaks drop
    tcp dport { 53, 853 } counter name leaks drop
    ip daddr != { 10.1.0.0/24, 10.2.0.0/24, 127.0.0.0/8, 198.51.100.0/24, 203.0.113.0/24 } \
      counter name leaks drop
  }
}
"""

# What is `blocked` does not pass between the sites; the link of a site that is `cut` loses everything.
_ROUTER = """
table ip router {
  set blocked { type inet_proto; }
  set cut { type ifname; }
  chain lossy { }
  chain enter { type filter hook prerouting priority -300; iifname @cut drop; iifname "site*" jump lossy; }
  chain leave { type filter hook postrouting priority 0; oifname @cut drop; }
  chain between { type filter hook forward priority 0; meta l4proto @blocked drop; }
}
"""

# Unasked packets from outside are dropped on `input`: accepted ones would take an entry in the table of
# connections, which makes the masquerade move our own flow to another port.
_NAT = """
flush ruleset
table ip nat {{
  chain in {{ type nat hook prerouting priority dstnat; {enter}; }}
  chain out {{ type nat hook postrouting priority srcnat; oifname "wan" masquerade {ports}; }}
}}
table ip filter {{
  chain input {{
    type filter hook input priority 0;
    iifname "wan" ct state != {{ established, related }} drop
  }}
  chain forward {{
    type filter hook forward priority 0; policy drop;
    {forward}
    iifname "lan" accept
    ct state {{ established, related }} accept
    ct status dnat accept
  }}
}}
"""


class NatLab:
    """A lab of its own, from `with` on until its end."""

    def __init__(self, a: Nat = "independent", b: Nat = "independent") -> None:
        self._prefix = f"natlab-{os.getpid()}-{next(_numbers)}"
        self._kinds: dict[Site, Nat] = {"A": a, "B": b}

    def __enter__(self) -> Self:
        _sweep()
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _build(self) -> None:
        for place in ("A", "B", "public", "natA", "natB"):
            _run("ip", "netns", "add", self._namespace(place))
            self._do(place, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
            self._ip(place, "link set lo up")
        for site, lan, wan in (("A", "10.1.0", "203.0.113.2"), ("B", "10.2.0", "203.0.113.6")):
            nat, gateway = f"nat{site}", f"203.0.113.{int(wan[-1]) - 1}"
            self._link(site, f"{lan}.2/24", "eth0", nat, f"{lan}.1/24", "lan")
            self._link(nat, f"{wan}/30", "wan", "public", f"{gateway}/30", f"site{site}")
            self._ip(site, f"route add default via {lan}.1")
            self._ip(nat, f"route add default via {gateway}")
            self._do(nat, "sysctl", "-qw", "net.ipv4.ip_forward=1")
            self.nat("A" if site == "A" else "B", self._kinds["A" if site == "A" else "B"])
            self._rules(site, _WATCH)
        for address in PUBLIC:
            self._ip("public", f"address add {address}/32 dev lo")
        # A way out that leads nowhere, so that what would take it is seen.
        self._ip("public", "link add out type veth peer name nowhere")
        self._ip("public", "link set out up")
        self._ip("public", "route add default dev out")
        self._do("public", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        self._rules("public", _WATCH + _ROUTER)

    def _link(self, here: str, address: str, name: str, there: str, peer: str, port: str) -> None:
        both = f"peer name {port} netns {self._namespace(there)}"
        self._ip(here, f"link add {name} type veth {both}")
        for place, device, own in ((here, name, address), (there, port, peer)):
            self._ip(place, f"address add {own} dev {device}")
            self._ip(place, f"link set {device} up")

    def nat(self, site: Site, kind: Nat) -> None:
        """Make a site's NAT one of another kind; it forgets the flows that it knew."""
        rules = _NAT.format(
            enter=f'iifname "wan" meta l4proto udp dnat to {INNER[site]}' if kind == "cone" else "",
            ports="fully-random" if kind == "symmetric" else "",
            forward="meta l4proto udp drop" if kind == "no-udp" else "",
        )
        self._rules(f"nat{site}", rules)
        self.forget(site)

    def forget(self, site: Site) -> None:
        """Have a site's NAT forget all flows, as if it was switched off and on."""
        self._do(f"nat{site}", "conntrack", "--flush")

    def block(self) -> None:
        """Let no UDP through from site to site; the public place is still reached by both."""
        self._rules("public", "add element ip router blocked { udp }")

    def unblock(self) -> None:
        """Let UDP through again."""
        self._rules("public", "flush set ip router blocked")

    def cut(self, site: Site) -> None:
        """Lose everything on the way between a site and the public network."""
        self._rules("public", f"add element ip router cut {{ site{site} }}")

    def mend(self) -> None:
        """Undo all that `cut` did."""
        self._rules("public", "flush set ip router cut")

    def lose(self, per_thousand: int) -> None:
        """Lose so many of a thousand packets that come to the public network, at random."""
        self._rules("public", "flush chain ip router lossy")
        if per_thousand:
            rule = f"add rule ip router lossy numgen random mod 1000 <= {per_thousand - 1} drop"
            self._rules("public", rule)

    def leaks(self) -> int:
        """How many packets processes in the lab sent to where the lab is not, since it was built."""
        counters = [
            self._do(place, "nft", "list", "counter", "ip", "watch", "leaks")
            for place in ("A", "B", "public")
        ]
        return sum(int(re.findall(r"packets (\d+)", text)[0]) for text in counters)

    def command(self, place: Place, *command: object) -> list[str]:
        """The command that runs `command` in a place."""
        return ["ip", "netns", "exec", self._namespace(place), *map(str, command)]

    def start(self, place: Place, *command: object, **options: Any) -> subprocess.Popen[str]:
        """Start a process in a place. It ends with the lab, if it has not before."""
        return subprocess.Popen(self.command(place, *command), text=True, **options)

    def run(self, place: Place, *command: object, **options: Any) -> str:
        """Run a command in a place, and tell what it printed."""
        return _run(*self.command(place, *command), **options)

    def close(self) -> None:
        """End the processes and remove everything."""
        _remove([name for name in _labs() if name.startswith(self._prefix + "-")])

    def _namespace(self, place: str) -> str:
        return f"{self._prefix}-{place}"

    def _do(self, place: str, *command: str, **options: Any) -> str:
        return _run("ip", "netns", "exec", self._namespace(place), *command, **options)

    def _ip(self, place: str, arguments: str) -> None:
        _run("ip", "-n", self._namespace(place), *arguments.split())

    def _rules(self, place: str, rules: str) -> None:
        self._do(place, "nft", "-f", "-", input=rules)


def need_lab() -> None:
    """Skip the test where no lab can be built, or fail on a server."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if os.geteuid() != 0:
        reason = "only root can lay networks"
    elif missing:
        reason = f"there is no {' and no '.join(missing)} here; scripts/servers installs it"
    else:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _run(*command: str, **options: Any) -> str:
    options = {"timeout": 120, "text": True, **options}
    done: subprocess.CompletedProcess[str] = subprocess.run(command, capture_output=True, **options)
    if done.returncode != 0:
        text = f"`{' '.join(command)}` ended with {done.returncode}: {done.stdout}{done.stderr}"
        raise RuntimeError(text)
    return done.stdout


def _labs() -> list[str]:
    if not _NAMESPACES.is_dir():
        return []
    return sorted(path.name for path in _NAMESPACES.iterdir() if _NAME.fullmatch(path.name))


def _sweep() -> None:
    """Remove labs of processes that were killed before they could."""

    def orphaned(name: str) -> bool:
        match = _NAME.fullmatch(name)
        return match is not None and not Path(f"/proc/{match[1]}").exists()

    _remove([name for name in _labs() if orphaned(name)])


def _remove(namespaces: list[str]) -> None:
    end = time.monotonic() + 30
    for name in namespaces:
        while pids := _pids(name):
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if time.monotonic() > end:
                raise RuntimeError(f"processes {pids} in {name} do not end")
            time.sleep(0.01)
        subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _pids(namespace: str) -> list[int]:
    """The processes in a namespace, without those that are dead and not yet waited for."""
    listed = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, check=False)
    return [int(pid) for pid in listed.stdout.split() if Path(f"/proc/{int(pid)}/exe").exists()]

"""A network of the daemon's own, whose link to server A can be made to eat packets: no FIN ever comes, and no reset.

Owns a network namespace and two pairs of virtual Ethernet devices: one leads to A, the other to B and to the daemon's
own port. Needs root and iproute2; where it cannot be had, `NetworkError` says what was missing.
"""

import os
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from under_fault.stand import Stand, stand

# RFC 2544: for benchmarks, and routed nowhere.
NET = "198.18"


class NetworkError(Exception):
    """The network cannot be had here."""


@dataclass(frozen=True, slots=True)
class Link:
    """A pair of devices. `ours` and `theirs` are the addresses here and in the daemon's namespace."""

    device: str
    ours: str
    theirs: str

    @contextmanager
    def eating_packets(self, _stand: Stand | None = None) -> Iterator[None]:
        """Take the near end down: the far end still sends, and nothing arrives on either side."""
        _ip("link", "set", self.device, "down")
        try:
            yield
        finally:
            _ip("link", "set", self.device, "up")


@dataclass(frozen=True, slots=True)
class Network:
    """The namespace and its links."""

    namespace: str
    to_a: Link
    to_b: Link

    @property
    def prefix(self) -> Sequence[str]:
        """The command that runs another one inside."""
        return ("ip", "netns", "exec", self.namespace)


@contextmanager
def far_stand(network: Network, bindir: Path | None = None) -> Iterator[Stand]:
    """Set up a stand whose daemon lives in the namespace, and reaches A and B over a link each."""
    hosts = (network.to_a.ours, network.to_b.ours)
    with stand(hosts=hosts, listen=hosts, prefix=network.prefix, host=network.to_b.theirs, bindir=bindir) as far:
        yield far


@contextmanager
def network() -> Iterator[Network]:
    """Make a namespace with two links; raises NetworkError."""
    if os.geteuid() != 0:
        raise NetworkError("a network namespace needs root")
    name = f"batsignal-{secrets.token_hex(3)}"
    with ExitStack() as stack:
        _ip("netns", "add", name)
        stack.callback(_ip, "netns", "delete", name)
        _ip("-n", name, "link", "set", "lo", "up")
        to_a, to_b = (_link(stack, name) for _ in range(2))
        yield Network(name, to_a, to_b)


def _link(stack: ExitStack, namespace: str) -> Link:
    token = secrets.token_hex(3)
    net = secrets.randbelow(64 * 256)
    prefix = f"{NET}.{net // 64}.{net % 64 * 4}"
    base, host = prefix.rpartition(".")[0], int(prefix.rpartition(".")[2])
    link = Link(f"bs{token}o", f"{base}.{host + 1}", f"{base}.{host + 2}")
    peer = f"bs{token}t"
    _ip("link", "add", link.device, "type", "veth", "peer", "name", peer, "netns", namespace)
    stack.callback(_ip, "link", "delete", link.device)
    _ip("address", "add", f"{link.ours}/30", "dev", link.device)
    _ip("-n", namespace, "address", "add", f"{link.theirs}/30", "dev", peer)
    _ip("link", "set", link.device, "up")
    _ip("-n", namespace, "link", "set", peer, "up")
    # Without this the far end would notice by itself: nobody answers who has the address, and connecting fails at once.
    _ip("-n", namespace, "neighbour", "replace", link.ours, "lladdr", _hardware(link.device), "dev", peer)
    return link


def _hardware(device: str) -> str:
    return _ip("-brief", "link", "show", device).split()[2]


def _ip(*arguments: str) -> str:
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as exc:
        raise NetworkError("`ip` is missing: install iproute2") from exc
    if done.returncode != 0:
        raise NetworkError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout

"""A network of the daemon's own, whose link to server A can be made to eat packets: no FIN ever comes, and no reset.

Owns a network namespace and two pairs of virtual Ethernet devices: one leads to A, the other to B and to the daemon's
own port. The namespace has no name, only a process that lives in it: whatever ends the test ends that, and the kernel
takes namespace and devices away. Needs root, iproute2 and util-linux; where it cannot be had, `NetworkError` says what
was missing.
"""

import os
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from batsignal.drills.guardian import Guardian
from under_fault.stand import Stand, stand, until

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
    """The namespace, known by the process that keeps it, and its links."""

    keeper_pid: int
    to_a: Link
    to_b: Link

    @property
    def prefix(self) -> Sequence[str]:
        """The command that runs another one inside."""
        return _inside(self.keeper_pid)


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
    with ExitStack() as stack:
        guardian = stack.enter_context(Guardian())
        try:
            keeper = guardian.spawn(["unshare", "--net", "sleep", "infinity"], cwd=Path("/"))
        except FileNotFoundError as exc:
            raise NetworkError("`unshare` is missing: install util-linux") from exc
        until(lambda: keeper.poll() is not None or _is_apart(keeper.pid), "a network namespace")
        if keeper.poll() is not None:
            raise NetworkError("a network namespace is not to be had: `unshare --net` failed")
        _ip("link", "set", "lo", "up", inside=keeper.pid)
        to_a, to_b = (_link(stack, keeper.pid) for _ in range(2))
        yield Network(keeper.pid, to_a, to_b)


def _is_apart(pid: int) -> bool:
    mine, its = (Path(f"/proc/{one}/ns/net").readlink() for one in ("self", pid))
    return mine != its


def _inside(keeper_pid: int) -> Sequence[str]:
    return ("nsenter", "--target", str(keeper_pid), "--net")


def _link(stack: ExitStack, keeper_pid: int) -> Link:
    token = secrets.token_hex(3)
    net = secrets.randbelow(64 * 256)
    prefix = f"{NET}.{net // 64}.{net % 64 * 4}"
    base, host = prefix.rpartition(".")[0], int(prefix.rpartition(".")[2])
    link = Link(f"bs{token}o", f"{base}.{host + 1}", f"{base}.{host + 2}")
    peer = f"bs{token}t"
    _ip("link", "add", link.device, "type", "veth", "peer", "name", peer, "netns", str(keeper_pid))
    stack.callback(_ip, "link", "delete", link.device)
    _ip("address", "add", f"{link.ours}/30", "dev", link.device)
    _ip("address", "add", f"{link.theirs}/30", "dev", peer, inside=keeper_pid)
    _ip("link", "set", link.device, "up")
    _ip("link", "set", peer, "up", inside=keeper_pid)
    # Without this the far end would notice by itself: nobody answers who has the address, and connecting fails at once.
    hardware = _hardware(link.device)
    _ip("neighbour", "replace", link.ours, "lladdr", hardware, "dev", peer, inside=keeper_pid)
    return link


def _hardware(device: str) -> str:
    return _ip("-brief", "link", "show", device).split()[2]


def _ip(*arguments: str, inside: int | None = None) -> str:
    way = () if inside is None else _inside(inside)
    try:
        done = subprocess.run([*way, "ip", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as exc:
        raise NetworkError("`ip` is missing: install iproute2") from exc
    if done.returncode != 0:
        raise NetworkError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout

"""The server's host as metric families. All are absent unless the server runs on this host."""

from collections.abc import Iterator

from prometheus_client.core import Metric

from batsignal.expose.families.shapes import gauge
from batsignal.record.board import ServerBoard


def host_families(server: ServerBoard) -> Iterator[Metric]:
    """Yield processor, memory, processes and TCP sessions."""
    host = server.snapshot.host
    name = (server.name,)
    numbers: tuple[tuple[str, str, float | None], ...] = ()
    if host is not None:
        numbers = (
            ("batsignal_host_cpu_ratio", "Processor time in use on the server's host, 0 to 1.", host.cpu_ratio),
            ("batsignal_host_memory_used_ratio", "Memory in use on the server's host, 0 to 1.", host.memory_used_ratio),
            ("batsignal_host_load1", "Load of the server's host over one minute.", host.load1),
            ("batsignal_host_cpus", "Processors of the server's host.", host.cpu_count),
            ("batsignal_server_processes", "Processes of the server.", host.server_processes),
            ("batsignal_server_resident_bytes", "Memory of the server's processes.", host.server_rss_bytes),
        )
    for metric, text, value in numbers:
        samples = [] if value is None else [(name, value)]
        yield gauge(metric, f"{text} Absent unless the server runs on this host.", ("server",), samples)
    yield gauge(
        "batsignal_server_tcp_sessions",
        "TCP sessions on the server's port by state. Absent unless the server runs on this host.",
        ("server", "state"),
        [((server.name, state), count) for state, count in sorted(host.tcp.items())] if host else [],
    )

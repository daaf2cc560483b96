"""The daemon itself as metric families: its version, its configuration, the deploys that it knows of."""

from collections.abc import Iterator

from prometheus_client.core import Metric

from batsignal.expose.families.shapes import gauge
from batsignal.record.board import Board


def daemon_families(board: Board) -> Iterator[Metric]:
    """Yield version, configuration and deploys."""
    yield gauge("batsignal_build_info", "The running version; always 1.", ("version",), [((board.version,), 1)])
    yield gauge(
        "batsignal_config_last_reload_successful",
        "Whether the last read of the configuration succeeded; on 0 the old one is in force.",
        (),
        [((), float(board.config_reload_ok))],
    )
    yield gauge(
        "batsignal_config_last_reload_success_timestamp_seconds",
        "When the configuration in force was read.",
        (),
        [((), board.config_reload_at)],
    )
    yield gauge(
        "batsignal_web_config_last_reload_successful",
        "Whether what stands in the web config and its certificates is in force; on 0 what was there before is.",
        (),
        [((), float(board.web_config_error is None))],
    )
    yield gauge(
        "batsignal_deploy_timestamp_seconds",
        "When a version of a service began to run; absent where nobody saw or told of it.",
        ("service", "version"),
        # The newest wins: a version that was rolled back to has been deployed twice.
        {(deploy.service, deploy.version): deploy.at for deploy in board.deploys}.items(),
    )

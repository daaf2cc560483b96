"""`batsignal run`: the daemon in the foreground, its log on standard error."""

import logging
import os
import signal
import sys
import threading
from pathlib import Path

import structlog

from batsignal import assets, footprint
from batsignal.config import load
from batsignal.daemon import Daemon


def run(
    *,
    config_file: str | None,
    listen_address: str | None,
    web_config_file: str | None,
    enable_lifecycle: bool,
    record: str | None,
    log_level: str,
    log_format: str,
) -> None:
    """Run until SIGTERM; raises ConfigError (exit 2) or UnreachableError (exit 3) before it starts."""
    _obey_signals_early()
    footprint.share_memory()
    _log_to_stderr(log_level, log_format)
    config = load(config_file, os.environ)
    Daemon(
        config,
        read_config=lambda: load(config_file, os.environ),
        listen_address=listen_address or config.web.listen_address,
        web_config_file=web_config_file,
        enable_lifecycle=enable_lifecycle,
        runbooks=_runbooks(),
        record=record,
    ).run()
    _leave()


def _obey_signals_early() -> None:
    """End with exit code 0 on SIGTERM also before the daemon's own handlers stand, and do not die of a SIGHUP."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _runbooks() -> Path | None:
    """Return the folder of the shipped runbooks; None in a copy of the package without them."""
    alerts = assets.folder("alerts")
    runbooks = None if alerts is None else alerts / "runbooks"
    return runbooks if runbooks is not None and runbooks.is_dir() else None


def _log_to_stderr(level: str, spelling: str) -> None:
    last: list[structlog.typing.Processor] = (
        [structlog.processors.JSONRenderer()]
        if spelling == "json"
        else [
            _legible,
            structlog.processors.LogfmtRenderer(
                key_order=["time", "level", "event"], drop_missing=True, bool_as_flag=False
            ),
        ]
    )
    before_last: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*before_last, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before_last,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # What they log at INFO is noise to an operator; each of their requests would be a line.
    for chatty in ("httpx", "httpcore", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # It warns of each request that is none: whoever can reach the port could fill the disk with that.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)


def _legible(
    _logger: structlog.typing.WrappedLogger, _method: str, fields: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Spell out what would move a terminal's cursor or turn its writing; line breaks logfmt spells out itself."""
    return {key: _spelled_out(value) if isinstance(value, str) else value for key, value in fields.items()}


def _spelled_out(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode("ascii") for char in text
    )


def _leave() -> None:
    """End the process now if a thread hangs in a look: Python would wait for it, and SIGTERM must be obeyed."""
    lingering = [
        thread
        for thread in threading.enumerate()
        if thread is not threading.main_thread() and not thread.daemon and thread.is_alive()
    ]
    for thread in lingering:
        thread.join(timeout=0.5 / len(lingering))
    if any(thread.is_alive() for thread in lingering):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)

"""What holds for all tests."""

import signal


def pytest_configure() -> None:
    """Take SIGHUP as under a terminal: `nohup` would hand its being ignored on to all that the tests start."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

"""The shop's customers: a steady stream of purchases, and what they live through.

Owns the load and its own count of it. It must not look at the shop from inside: a customer sees an answer, a refusal or
a long wait, and so does this.

    python -m batsignal.drills.actors.shoppers --host shop --port 8000
"""

import argparse
import http.client
import signal
import statistics
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

SHOPPERS = 8
PERIOD_SECONDS = 0.8
TIMEOUT_SECONDS = 3.0
WINDOW_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Purchase:
    """One try to buy: when it ended, how long it took, whether it worked."""

    at: float
    seconds: float
    bought: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Mood:
    """How the last few seconds were for customers; the p50 is None when nobody tried."""

    p50_seconds: float | None
    failed_ratio: float


def mood_of(purchases: Iterable[Purchase], *, since: float) -> Mood:
    """Sum up the purchases that ended after `since`.

    >>> mood_of([Purchase(1.0, 9.0, False), Purchase(5.0, 0.1, True), Purchase(6.0, 0.3, False)], since=4.0)
    Mood(p50_seconds=0.2, failed_ratio=0.5)
    """
    recent = [purchase for purchase in purchases if purchase.at > since]
    if not recent:
        return Mood(p50_seconds=None, failed_ratio=0.0)
    failed = sum(not purchase.bought for purchase in recent)
    p50_seconds = statistics.median(purchase.seconds for purchase in recent)
    return Mood(p50_seconds=p50_seconds, failed_ratio=failed / len(recent))


class Shoppers:
    """Some customers, each with a thread; they come back every `PERIOD_SECONDS`, later when the shop is slow."""

    def __init__(self, port: int, *, host: str = "127.0.0.1") -> None:
        self._address = (host, port)
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._purchases: deque[Purchase] = deque(maxlen=SHOPPERS * 50)

    def start(self) -> None:
        """Open the doors."""
        for number in range(SHOPPERS):
            first = number * PERIOD_SECONDS / SHOPPERS
            threading.Thread(target=self._shop, args=(first,), daemon=True).start()

    def stop(self) -> None:
        """Let no customer come again; those inside leave within their timeout."""
        self._stopped.set()

    def mood(self) -> Mood:
        """Return how the last seconds were."""
        with self._lock:
            purchases = list(self._purchases)
        return mood_of(purchases, since=time.time() - WINDOW_SECONDS)

    def first_failure_since(self, t: float) -> float | None:
        """Return when the first purchase failed at or after `t`, among those still remembered."""
        with self._lock:
            return next((purchase.at for purchase in self._purchases if not purchase.bought and purchase.at >= t), None)

    def _shop(self, first_seconds: float) -> None:
        wait = first_seconds
        while not self._stopped.wait(wait):
            started = time.monotonic()
            bought = _buy(*self._address)
            seconds = time.monotonic() - started
            self._note(Purchase(time.time(), seconds, bought))
            wait = max(PERIOD_SECONDS - seconds, 0.0)

    def _note(self, purchase: Purchase) -> None:
        with self._lock:
            self._purchases.append(purchase)


def _buy(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/buy")
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return answer.status == http.HTTPStatus.OK


def main(arguments: list[str] | None = None) -> None:
    """Go shopping until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m batsignal.drills.actors.shoppers")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(arguments)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    shoppers = Shoppers(options.port, host=options.host)
    shoppers.start()
    stopped.wait()
    shoppers.stop()


if __name__ == "__main__":
    main()

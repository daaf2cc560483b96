"""Pieces of PromQL that all dashboards share.

Two things hold everywhere. `max by` over a series' own labels comes first: it drops the target's labels, so two daemons
that watch the same server count once, as in the alert rules. And what is drawn over time is a rate or a `_over_time`
over `$__rate_interval`: a spike between two points of a month is in the picture, and so is one of ten seconds.
"""

SERVER = 'server=~"$server"'
WINDOW = "[$__rate_interval]"
SESSION_SECONDS = "batsignal_session_seconds_total"


def each(metric: str, *labels: str, where: str = "") -> str:
    """Return one series for each value of the labels, of the chosen servers.

    >>> each("batsignal_up", "server")
    'max by (server) (batsignal_up{server=~"$server"})'
    """
    return f"max by ({', '.join(labels)}) ({metric}{_selector(where)})"


def worst(metric: str, *labels: str, where: str = "", of: str = "max") -> str:
    """Return the largest (`of="min"`: the smallest) value between two points, for each value of the labels.

    >>> worst("batsignal_blocked_sessions", "server")
    'max by (server) (max_over_time(batsignal_blocked_sessions{server=~"$server"}[$__rate_interval]))'
    """
    return f"{of} by ({', '.join(labels)}) ({of}_over_time({metric}{_selector(where)}{WINDOW}))"


def per_second(metric: str, *labels: str, own: str, where: str = "") -> str:
    """Return a counter's rate, summed over its `own` labels that are not in `labels`.

    >>> per_second("x_total", "server", own="server, reason")
    'sum by (server) (max by (server, reason) (rate(x_total{server=~"$server"}[$__rate_interval])))'
    """
    return f"sum by ({', '.join(labels)}) (max by ({own}) (rate({metric}{_selector(where)}{WINDOW})))"


def held(*labels: str, where: str = "") -> str:
    """Return how many sessions were held, as the mean between two points: from the counter that misses no tick."""
    return per_second(SESSION_SECONDS, *labels, own="server, application, version, state", where=where)


def named(expression: str, label: str = "application", otherwise: str = "(unnamed)") -> str:
    """Return the expression with a word in place of an empty label."""
    return f'label_replace({expression}, "{label}", "{otherwise}", "{label}", "")'


def quantile(of: float, histogram: str, *labels: str, where: str = SERVER) -> str:
    """Return a quantile of a histogram's observations between two points."""
    by = ", ".join((*labels, "le"))
    return f"histogram_quantile({of}, sum by ({by}) (rate({histogram}_bucket{{{where}}}{WINDOW})))"


def _selector(where: str) -> str:
    return f"{{{SERVER}{', ' if where else ''}{where}}}"

"""Content negotiation: which of the variants that the tick rendered a client of `/metrics` wants, or of a runbook.

Owns the reading of `Accept` and `Accept-Encoding` with their weights (RFC 9110, 12.4.2 and 12.5). It knows nothing of
metrics. Answers are cached by header text: a scraper sends the same two headers for years.
"""

from functools import lru_cache

OPENMETRICS = "application/openmetrics-text"
PLAIN = "text/plain"
HTML = "text/html"


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() != "q":
            continue
        try:
            return min(max(float(value), 0.0), 1.0)
        except ValueError:
            return 0.0
    return 1.0


def weights(header: str) -> dict[str, float]:
    """Return what a header asks for and how much (0 to 1); of an entry given twice the larger weight counts.

    >>> weights("gzip;q=0.5, br ; q=0, identity")
    {'gzip': 0.5, 'br': 0.0, 'identity': 1.0}
    """
    asked: dict[str, float] = {}
    for entry in header.split(","):
        name, *parameters = entry.split(";")
        name = name.strip().lower()
        if name:
            asked[name] = max(asked.get(name, 0.0), _weight(parameters))
    return asked


@lru_cache(maxsize=32)
def wants_openmetrics(accept: str) -> bool:
    """Whether `Accept` names OpenMetrics, and does not like the text format better. A wildcard gets the text format.

    >>> wants_openmetrics("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
    True
    >>> wants_openmetrics("*/*"), wants_openmetrics("application/openmetrics-text;q=0")
    (False, False)
    """
    asked = weights(accept)
    weight = asked.get(OPENMETRICS, 0.0)
    return weight > 0 and weight >= asked.get(PLAIN, 0.0)


@lru_cache(maxsize=32)
def wants_html(accept: str) -> bool:
    """Whether `Accept` names HTML, as browsers do, and does not like plain text better. A wildcard gets plain text.

    >>> wants_html("text/html,*/*;q=0.8"), wants_html("*/*"), wants_html("text/plain,text/html;q=0.5")
    (True, False, False)
    """
    asked = weights(accept)
    weight = asked.get(HTML, 0.0)
    return weight > 0 and weight >= asked.get(PLAIN, 0.0)


@lru_cache(maxsize=32)
def wants_gzip(accept_encoding: str) -> bool:
    """Whether `Accept-Encoding` allows gzip, and does not like the plain bytes better.

    >>> wants_gzip("gzip, deflate"), wants_gzip("gzip;q=0"), wants_gzip("*"), wants_gzip("")
    (True, False, True, False)
    """
    asked = weights(accept_encoding)
    weight = asked.get("gzip", asked.get("x-gzip", asked.get("*", 0.0)))
    return weight > 0 and weight >= asked.get("identity", 0.0)

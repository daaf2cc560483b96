"""Who answers what the daemon is asked over its API."""

import re
from typing import Any, cast

import pytest

from batsignal.clerk import Clerk
from batsignal.deploys.ledger import Ledger
from batsignal.expose.exchange import Refusal
from batsignal.names import ApplicationPattern
from batsignal.snapshot import Deploy

PATTERN = ApplicationPattern(re.compile(r"^(?P<service>[^@]+)@(?P<version>.+)$"))


def test_a_deploy_of_a_service_that_no_session_can_be_of_is_refused_and_not_kept() -> None:
    ledger, nothing = Ledger(PATTERN), cast("Any", None)
    clerk = Clerk(ledger=lambda: ledger, pattern=lambda: PATTERN, runners={}, publication=nothing, chronicle=nothing)
    with pytest.raises(Refusal, match=r"service: .* application_pattern .*web@x.* version .*x"):
        clerk.mark(Deploy(service="web@x", version="1", at=1_760_000_000.0))
    assert ledger.known == ()

"""Everyday life in which processes come and go: deploys, blue/green, cold starts, autoscaling.

Owns those rows. What each process does with its sessions is the pool's affair.
"""

from dataclasses import replace

from simulator.background import KINDS, Service, draw_service, set_background
from simulator.scenario import Play
from simulator.variation import Variation

HOUR = 3600.0
DOUBLED_SECONDS = 120.0
# Pools that open their minimum by themselves, asked or not.
FILLED = ("hikari", "psycopg", "minimum", "plain")


def _next_version(v: Variation, old: Service) -> Service:
    """Return the same service's next version, on hosts of its own; its name says so when it says a version at all."""
    application = old.application
    if application is not None and "@" in application:
        application = f"{application.split('@')[0]}@{v.version()}"
    return replace(old, application=application, hosts=v.hosts(len(old.hosts)), parts=[])


def rolling_deploy(seed: int, quick: bool) -> Play:
    v = Variation("rolling-deploy", seed, quick=quick)
    onset = v.amount("onset_seconds", 200, 400)
    pods = v.number("pods", 3, 14)
    rate = v.pick("rate_per_second", (0.0, 0.5, 5.0, 30.0))
    kinds = KINDS if rate else FILLED
    gap = v.amount("pod_gap_seconds", 1.0, DOUBLED_SECONDS / pods)
    old = draw_service(v, "web", rate=rate, pods=pods, least=(1, 10), kinds=kinds)
    new = _next_version(v, old)
    v.facts |= {"names": [old.application, new.application], "hosts_old": old.hosts, "hosts_new": new.hosts}

    old.pool["idle_seconds"] = new.pool["idle_seconds"] = None
    v.facts |= {"pool_kind": old.kind, "pool_least": old.pool["least"]}
    seconds = onset + gap * pods + DOUBLED_SECONDS + v.length(900, 300)
    old.start(v)
    for n, (old_pool, client) in enumerate(zip(old.parts, new.hosts, strict=True)):
        comes = onset + gap * n
        new.pod(v, client, at=v.at(comes))
        v.world.call(v.at(comes + DOUBLED_SECONDS), old_pool.close)
    _announce(v, new, onset)
    v.moments += [onset + gap * pods / 2, onset + DOUBLED_SECONDS / 2, onset + DOUBLED_SECONDS + gap * pods / 2]
    v.expect(old.sessions() + new.sessions())
    set_background(v, seconds)
    return v.play(seconds)


def _announce(v: Variation, service: Service, onset: float) -> None:
    """Tell of the deploy, or leave it to be found in `application_name`."""
    name, at, version = (service.application or "").partition("@")
    if at:
        announced = v.pick("announced", (True, False))
        v.world.deploy(name, version, v.at(onset), announced=announced)


def blue_green(seed: int, quick: bool) -> Play:
    v = Variation("blue-green", seed, quick=quick)
    switch = v.amount("switch_seconds", 300, 500)
    ready = v.amount("ready_before_seconds", 10, 120)
    idle = v.length(HOUR, 900)
    seconds = switch + idle + v.length(600, 240)
    pods = v.number("pods", 2, 8)
    rate = v.amount("rate_per_second", 1, 12)
    blue = draw_service(v, "web", rate=rate, pods=pods, least=(1, 12))
    green = _next_version(v, blue)
    life = blue.pool.get("lifetime_seconds")
    v.facts |= {"pool_kind": blue.kind, "pool_least": blue.pool["least"], "lifetime_seconds": life}
    v.facts |= {"hosts_old": blue.hosts, "hosts_new": green.hosts}

    def before(t: float) -> float:
        return rate / pods if t < v.at(switch) else 0.0

    def after(t: float) -> float:
        return rate / pods if t >= v.at(switch) else 0.0

    blue.start(v, rate=before)
    green.start(v, at=v.at(switch - ready), rate=after, gap_seconds=v.draw.uniform(0, ready / pods))
    for pool in blue.parts:
        v.world.call(v.at(switch + idle), pool.close)
    _announce(v, green, switch - ready)
    v.moments += [switch + 10, switch + idle / 2, switch + idle + 5]
    v.expect(blue.sessions() + green.sessions())
    set_background(v, seconds)
    return v.play(seconds)


def pool_warm_up(seed: int, quick: bool) -> Play:
    v = Variation("pool-warm-up", seed, quick=quick)
    seconds = v.length(1500, 600)
    how = v.pick("filled", ("eagerly", "lazily"))
    services = v.number("services", 1, 4)
    together = v.number("pods", 1, 24)
    begins = v.amount("begins_seconds", 5, 200)
    names = v.draw.sample(("web", "checkout", "search", "billing", "mail"), services)
    for name in names:
        rate = v.draw.choice((0.0, 0.0, 1.0, 8.0)) if how == "eagerly" else v.draw.uniform(1.0, 12.0)
        service = draw_service(v, name, rate=rate, pods=max(together // services, 1), least=(2, 12), kinds=FILLED)
        service.pool.update(
            # HikariCP adds one after the other, at the pace of the logins; a slow login makes a slow fill.
            fill_gap_seconds=v.draw.choice((0.005, 0.05, 0.3, 0.8)),
            idle_seconds=None,
        )
        lowest = service.pool["least"]
        if how == "lazily":
            service.pool["least"] = 0
            service.pool["most"] = lowest
        if v.draw.random() < 0.25:
            service = replace(service, hosts=[service.hosts[0]] * len(service.hosts))
            v.facts["behind_one_address"] = True
        gap = v.draw.choice((0.0, 0.2, 1.5))
        service.start(v, at=v.at(begins + v.draw.uniform(0, 30)), gap_seconds=gap)
        v.expect(len(service.hosts) * (lowest + 2))
    v.moments += [begins + 3, begins + 20]
    set_background(v, seconds, services=(0, 2), traps=2)
    return v.play(seconds)


def autoscaling(seed: int, quick: bool) -> Play:
    v = Variation("autoscaling", seed, quick=quick)
    return _scaling(v, one_address=False)


def autoscaling_one_address(seed: int, quick: bool) -> Play:
    v = Variation("autoscaling-one-address", seed, quick=quick)
    return _scaling(v, one_address=True)


def _scaling(v: Variation, *, one_address: bool) -> Play:
    onset = v.amount("onset_seconds", 200, 400)
    before = v.number("pods_before", 1, 4)
    more = v.number("pods_more", 4, 20)
    gap = v.amount("pod_gap_seconds", 3, 40)
    waves = v.number("pods_at_once", 1, 3)
    seconds = onset + gap * more + v.length(1800, 400)
    rate = v.pick("rate_per_pod", (0.0, 0.1, 1.0, 3.0))
    least = (1, 4) if one_address else (1, 8)
    kinds = KINDS if rate else FILLED
    service = draw_service(v, "web", rate=rate * (before + more), pods=before + more, least=least, kinds=kinds)
    service.pool["idle_seconds"] = None
    v.facts |= {"pool_kind": service.kind, "pool_least": service.pool["least"], "named": service.application}
    if one_address:
        service = replace(service, hosts=[service.hosts[0]] * len(service.hosts))
    v.facts["hosts"] = sorted(set(service.hosts))
    for n, client in enumerate(service.hosts):
        step = max(n - before, 0) // waves * waves
        comes = 0.0 if n < before else v.at(onset + gap * step + v.draw.uniform(0, 0.3 * gap))
        service.pod(v, client, at=comes)
    v.moments += [onset + gap * more / 3, onset + gap * more * 2 / 3, onset + gap * more + 10]
    v.expect(service.sessions())
    set_background(v, seconds)
    return v.play(seconds)


BUILDERS = {
    "rolling-deploy": rolling_deploy,
    "blue-green": blue_green,
    "pool-warm-up": pool_warm_up,
    "autoscaling": autoscaling,
    "autoscaling-one-address": autoscaling_one_address,
}

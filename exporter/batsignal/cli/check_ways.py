"""`batsignal check`, on one server: which ways to see are open should no slot be left, and what each will not show.

Owns the words and the two kinds of line (a fact that is well or not, and a remark). Trying is `Sight`'s.
"""

from batsignal.config import ServerConfig
from batsignal.poll.sight import Ways
from batsignal.snapshot import Snapshot

RESERVE_VERSION_NUM = 160_000


def say(well: bool, where: str, what: str) -> bool:
    """Print one fact, and return whether it is well."""
    print(f"{'ok  ' if well else 'FAIL'} {where}: {what}")
    return well


def remark(where: str, what: str) -> None:
    """Print what may be as it is, and is worth knowing."""
    print(f"note {where}: {what}")


def check_ways(server: ServerConfig, snapshot: Snapshot, ways: Ways) -> bool:
    """Print a line for each way beside the kept session; return False when one that is configured does not work."""
    where = f"server {server.name}"
    _reserve(where, snapshot, ways)
    well = _walsender(where, ways)
    _processes(where, ways, server.data_directory)
    if not ways.may_use_reserve and ways.emergency is None and ways.processes is None:
        remark(where, "started while every slot is taken, it would see nothing: give it an emergency_dsn")
    return well


def _reserve(where: str, snapshot: Snapshot, ways: Ways) -> None:
    if ways.may_use_reserve:
        say(True, where, "a reserved slot may be taken when no other is left")
    elif snapshot.met is None and (snapshot.server_version_num or 0) >= RESERVE_VERSION_NUM:
        reserved = snapshot.slots is not None and snapshot.slots.reserved > 0
        first = "" if reserved else "set reserved_connections and "
        grant = snapshot.grant.replace("pg_monitor", "pg_use_reserved_connections")
        remark(where, f"no slot is reserved for the role: {first}{grant}")


def _walsender(where: str, ways: Ways) -> bool:
    look = ways.emergency
    if look is None:
        remark(where, "no emergency_dsn: no walsender to look through when no slot is left")
        return True
    if look.failure is not None:
        return say(False, where, f"emergency_dsn: {look.failure.reason}: {look.failure.text}")
    if not look.privileged:
        return say(False, where, f"emergency_dsn: the role may not see other roles' sessions; {look.grant}")
    return say(True, where, "emergency_dsn: a walsender shows every session when no slot is left")


def _processes(where: str, ways: Ways, data_directory: str | None) -> None:
    seen = ways.processes
    if seen is None:
        if data_directory is not None:
            remark(
                where, f"data_directory: no running server that this user may look at is found in {data_directory!r}"
            )
        remark(where, "not shown to run on this host: no host metrics, and no titles of its processes as a last way")
        return
    say(True, where, "runs on this host: the titles of its processes are a last way, without application names")
    if seen.sessions and all(session.state is None for session in seen.sessions):
        remark(where, "update_process_title is off: the titles will not tell who is at work")

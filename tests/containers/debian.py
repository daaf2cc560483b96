"""Debian's programs in the place of images that are not ours, as far as docker-compose.yml counts on what those are.

For PostgreSQL that is its documented entrypoint: initdb with the password from a file, the scripts of
`/docker-entrypoint-initdb.d` against a server on its socket, then the server.
"""

import os
from dataclasses import dataclass, field

from containers.root import Root

POSTGRES_USER = "999:999"
_BINDIR = "/usr/lib/postgresql/15/bin"
_POSTGRES = f"""\
#!/bin/sh
set -eu
data=/var/lib/postgresql/data
if [ ! -s $data/PG_VERSION ]; then
    {_BINDIR}/initdb --pgdata $data --username "$POSTGRES_USER" --pwfile "$POSTGRES_PASSWORD_FILE" \\
        --auth-host scram-sha-256 --auth-local trust >/dev/null
    echo 'host all all all scram-sha-256' >>$data/pg_hba.conf
    {_BINDIR}/pg_ctl --pgdata $data --wait --options "-c listen_addresses=''" start >/dev/null
    for script in /docker-entrypoint-initdb.d/*.sh; do sh "$script"; done
    {_BINDIR}/pg_ctl --pgdata $data --wait stop >/dev/null
fi
program=$1
shift
exec {_BINDIR}/$program -D $data -c listen_addresses='*' "$@"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """What stands for an image: its user, its entrypoint, folders it owns, and names that its programs go by."""

    user: str = "0:0"
    entrypoint: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    programs: dict[str, str] = field(default_factory=dict)

    def prepare(self, root: Root) -> None:
        """Put into a root what the image would have."""
        uid, gid = (int(one) for one in self.user.split(":"))
        for folder in self.folders:
            place = root.path(folder)
            place.mkdir(parents=True, exist_ok=True)
            os.chown(place, uid, gid)
        for name, program in self.programs.items():
            root.path(name).unlink(missing_ok=True)
            root.path(name).symlink_to(program)


class _Postgres(Stand):
    def prepare(self, root: Root) -> None:
        super().prepare(root)
        users = root.path("/etc/passwd")
        lines = [line for line in users.read_text().splitlines() if not line.startswith("postgres:")]
        uid, _, gid = POSTGRES_USER.partition(":")
        users.write_text("\n".join([*lines, f"postgres:x:{uid}:{gid}::/var/lib/postgresql:/bin/sh", ""]))
        script = root.path("/usr/local/bin/entrypoint.sh")
        script.write_text(_POSTGRES)
        script.chmod(0o755)


STANDS = {
    "postgres": _Postgres(
        user=POSTGRES_USER,
        entrypoint=("/usr/local/bin/entrypoint.sh",),
        folders=("/var/lib/postgresql/data", "/run/postgresql"),
    ),
    "edoburu/pgbouncer": Stand(programs={"/usr/bin/pgbouncer": "/usr/sbin/pgbouncer"}),
    "prom/prometheus": Stand(user="65534:65534", entrypoint=("prometheus",), folders=("/prometheus",)),
    "prom/alertmanager": Stand(user="65534:65534", entrypoint=("prometheus-alertmanager",), folders=("/alertmanager",)),
}


def stand_for(image: str) -> Stand | None:
    """Return what stands for an image, whatever its tag; None where Debian has nothing like it."""
    return STANDS.get(image.partition(":")[0])

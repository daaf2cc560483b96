"""A root of its own for a process: an overlay over this machine's file system, whose writes go to a folder."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


def run(command: Sequence[str], **facts: Any) -> str:
    """Run a command to its end and return what it printed. Raises RuntimeError that says what it said."""
    ended = subprocess.run(command, capture_output=True, text=True, check=False, **facts)
    if ended.returncode != 0:
        raise RuntimeError(f"{' '.join(command)[:300]}: exit {ended.returncode}: {ended.stdout}{ended.stderr}")
    return ended.stdout


@dataclass(frozen=True, slots=True)
class Root:
    """A file system to run things in. Must be made in a mount namespace of one's own."""

    merged: Path
    upper: Path

    @classmethod
    def over_the_machine(cls, folder: Path, *, below: "Root | None" = None) -> "Root":
        """Lay an overlay over this machine, or over what another root has written on top of it."""
        upper, work, merged = folder / "upper", folder / "work", folder / "merged"
        for one in (upper, work, merged):
            one.mkdir(parents=True)
        lower = f"{below.upper}:/" if below else "/"
        run(
            [
                "mount",
                "-t",
                "overlay",
                "overlay",
                "-o",
                f"lowerdir={lower},upperdir={upper},workdir={work}",
                str(merged),
            ]
        )
        root = cls(merged, upper)
        for name in ("proc", "dev", "sys"):
            run(["mount", "--rbind", f"/{name}", str(merged / name)])
        # Nothing that is left lying about on this machine is part of an image.
        for name in ("tmp", "run", "src"):
            (merged / name).mkdir(exist_ok=True)
            run(
                [
                    "mount",
                    "-t",
                    "tmpfs",
                    "-o",
                    "mode=1777" if name == "tmp" else "mode=755",
                    "tmpfs",
                    str(merged / name),
                ]
            )
        if below is None:
            root._put_python()
        return root

    def _put_python(self) -> None:
        """Let `python` be the one that runs the tests, for every user."""
        python = Path(os.path.realpath(sys.executable))
        # No link: a venv made through one would look for the standard library beside the link.
        wrapper = self.path("/usr/local/bin/python")
        wrapper.unlink(missing_ok=True)
        wrapper.write_text(f'#!/bin/sh\nexec {python} "$@"\n')
        wrapper.chmod(0o755)
        for parent in python.parents:
            place = self.path(str(parent))
            place.chmod(place.stat().st_mode | 0o011)

    def path(self, name: str) -> Path:
        """Return where something lies, as seen from outside."""
        return self.merged / name.lstrip("/")

    def command(
        self,
        words: Sequence[str],
        *,
        directory: str = "/",
        environment: Mapping[str, str] | None = None,
        user: str = "0:0",
        has_no_rights: bool = False,
    ) -> list[str]:
        """Return the command that runs `words` in here; `has_no_rights` drops all capabilities for good."""
        uid, _, gid = user.partition(":")
        variables = {"PATH": SYSTEM_PATH, "HOME": directory} | dict(environment or {})
        dropped = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"] if has_no_rights else []
        return [
            *("chroot", str(self.merged), "env", "--ignore-environment", f"--chdir={directory}"),
            *(f"{name}={value}" for name, value in variables.items()),
            *("setpriv", f"--reuid={uid}", f"--regid={gid or uid}", "--clear-groups", *dropped, *words),
        ]

    def run(self, words: Sequence[str], **facts: Any) -> str:
        """Run something in here to its end; return what it printed."""
        return run(self.command(words, **facts))

    def mount(self, source: Path, target: str, *, read_only: bool) -> None:
        """Show a file or folder of outside at `target`."""
        place = self.path(target)
        if source.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        elif not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        run(["mount", "--bind", str(source), str(place)])
        if read_only:
            run(["mount", "-o", "remount,bind,ro", str(place)])

    def make_read_only(self) -> None:
        """Let nothing be written any more, but where something is mounted."""
        run(["mount", "-o", "remount,ro", str(self.merged)])

"""The services of docker-compose.yml as processes: mounts, users, order and health checks as the file says."""

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from containers.debian import stand_for
from containers.dockerfile import Image, build
from containers.root import Root

HEALTHY_SECONDS = 90.0
STOP_SECONDS = 20.0


@dataclass(slots=True, kw_only=True)
class Service:
    """One service: what runs, and how one sees that it is well."""

    name: str
    root: Root
    command: list[str]
    facts: dict[str, Any]
    health: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self.root.command(self.command, **self.facts),
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )

    def is_healthy(self) -> bool:
        """Whether the health check passes; a service that has ended is an error."""
        if self.process is None or self.process.poll() is not None:
            raise RuntimeError(f"{self.name} ended: {self.said()[-2000:]}")
        ended = subprocess.run(
            self.root.command(self.health, **self.facts), capture_output=True, timeout=10, check=False
        )
        return ended.returncode == 0

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self) -> int:
        """End it as an engine does, by SIGTERM; return its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(STOP_SECONDS)


@dataclass(slots=True, kw_only=True)
class Project:
    """A compose file and all that runs of it."""

    repository: Path
    folder: Path
    content: Mapping[str, Any]
    image: Image
    services: dict[str, Service] = field(default_factory=dict)

    @classmethod
    def load(cls, repository: Path, folder: Path, environment: Mapping[str, str]) -> "Project":
        """Read docker-compose.yml and build the image that it builds."""
        content = yaml.safe_load((repository / "docker-compose.yml").read_text())
        (dockerfile,) = {one["build"]["dockerfile"] for one in content["services"].values() if "build" in one}
        image = build((repository / dockerfile).read_text(), repository, folder / "image", environment)
        return cls(repository=repository, folder=folder, content=content, image=image)

    def names(self, profile: str | None = None) -> list[str]:
        """Return the services that `up` starts and that can be played here, each behind those that it depends on."""
        ordered: list[str] = []

        def add(name: str) -> None:
            for before in self.content["services"][name].get("depends_on", {}):
                add(before)
            if name not in ordered:
                ordered.append(name)

        for name, said in self.content["services"].items():
            if profile in said.get("profiles", [profile]) and ("build" in said or stand_for(said["image"]) is not None):
                add(name)
        return ordered

    def up(self, name: str) -> None:
        """Start a service once those that it depends on are as it wants them."""
        said = self.content["services"][name]
        for before, wanted in said.get("depends_on", {}).items():
            self._await(self.services[before], wanted["condition"])
        self.services[name] = service = self._made(name, said)
        service.start()

    def await_health(self) -> None:
        """Wait until every service that has a health check passes it."""
        for service in self.services.values():
            if service.health:
                self._await(service, "service_healthy")

    def _await(self, service: Service, condition: str) -> None:
        assert service.process is not None
        if condition == "service_completed_successfully":
            code = service.process.wait(HEALTHY_SECONDS)
            if code != 0:
                raise RuntimeError(f"{service.name}: exit {code}: {service.said()}")
            return
        deadline = time.monotonic() + HEALTHY_SECONDS
        while not service.is_healthy():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{service.name} is not healthy: {service.said()[-2000:]}")
            time.sleep(0.3)

    def _made(self, name: str, said: Mapping[str, Any]) -> Service:
        folder = self.folder / name
        if "build" in said:
            image, root = self.image, Root.over_the_machine(folder, below=self.image.root)
        else:
            stand = stand_for(said["image"])
            assert stand is not None
            root = Root.over_the_machine(folder)
            stand.prepare(root)
            # An entrypoint of the file's own runs as the image's user, which for PostgreSQL's image is root.
            user = "0:0" if "entrypoint" in said else stand.user
            image = Image(root=root, user=user, entrypoint=list(stand.entrypoint))
        root.path("/etc/hosts").unlink(missing_ok=True)
        root.path("/etc/hosts").write_text(f"127.0.0.1 localhost alertmanager {' '.join(self.content['services'])}\n")
        for mount in said.get("volumes", ()):
            self._mount(root, mount)
        if said.get("read_only"):
            root.make_read_only()
        check = said.get("healthcheck", {})
        health = [] if check.get("disable") else [*check.get("test", ["CMD", *image.health])][1:]
        entrypoint = said.get("entrypoint", image.entrypoint)
        command = said.get("command", [] if "entrypoint" in said else image.command)
        facts = {
            "directory": image.directory,
            "environment": image.environment | said.get("environment", {}),
            "user": said.get("user", image.user),
            "has_no_rights": said.get("cap_drop") == ["ALL"],
        }
        log = self.folder / f"{name}.log"
        return Service(name=name, root=root, command=[*entrypoint, *command], facts=facts, health=health, log=log)

    def _mount(self, root: Root, mount: str) -> None:
        source, target, *options = mount.split(":")
        place = root.path(target)
        if source.startswith("."):
            root.mount((self.repository / source).resolve(), target, read_only="ro" in options)
            return
        volume = self.folder / "volumes" / source
        if not volume.exists():
            volume.mkdir(parents=True)
            if place.is_dir():  # a new volume looks as the image's folder does
                seen = place.stat()
                os.chown(volume, seen.st_uid, seen.st_gid)
                shutil.copymode(place, volume)
        root.mount(volume, target, read_only="ro" in options)

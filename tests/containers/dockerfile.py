"""A Dockerfile read and carried out: its RUN and COPY steps as plain commands in a root of their own."""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from containers.root import Root, run

KNOWN = {
    *("FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL"),
    *("HEALTHCHECK", "ENTRYPOINT", "CMD"),
}


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction, and all that stands behind it."""

    name: str
    rest: str


@dataclass(slots=True, kw_only=True)
class Image:
    """What a stage of a Dockerfile has become."""

    root: Root
    environment: dict[str, str] = field(default_factory=dict)
    user: str = "0:0"
    directory: str = "/"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)


def steps(text: str) -> list[Step]:
    """Return the instructions in order; comments and line breaks are gone. Raises ValueError for one not known."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    found = []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            if name not in KNOWN:
                raise ValueError(f"an instruction that is not known here: {line}")
            found.append(Step(name, rest.strip()))
    return found


def build(text: str, context: Path, folder: Path, environment: Mapping[str, str]) -> Image:
    """Carry out all stages and return the last. `environment` is the network's (mirrors), which RUN steps see too."""
    stages: dict[str, Image] = {}
    image: Image | None = None
    for step in steps(text):
        if step.name == "FROM":
            _, _, alias = step.rest.partition(" AS ")
            name = alias or f"stage{len(stages)}"
            stages[name] = image = Image(root=Root.over_the_machine(folder / name))
        elif image is None:
            raise ValueError(f"expected FROM first, got {step.name}")
        else:
            _carry_out(step, image, stages, context, environment)
    if image is None:
        raise ValueError("expected a FROM")
    return image


def _carry_out(
    step: Step, image: Image, stages: Mapping[str, Image], context: Path, environment: Mapping[str, str]
) -> None:
    if step.name == "RUN":
        image.root.run(
            ["sh", "-c", step.rest], directory=image.directory, environment=dict(environment) | image.environment
        )
    elif step.name == "COPY":
        _copy(step.rest, image, stages, context)
    elif step.name == "WORKDIR":
        image.directory = step.rest
        image.root.path(step.rest).mkdir(parents=True, exist_ok=True)
    elif step.name == "ENV":
        path = image.environment.get("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
        for word in shlex.split(step.rest):
            name, _, value = word.partition("=")
            image.environment[name] = value.replace("$PATH", path)
    elif step.name == "USER":
        image.user = step.rest
    elif step.name in {"ENTRYPOINT", "CMD", "HEALTHCHECK"}:
        words = json.loads(step.rest[step.rest.index("[") :])
        if step.name == "ENTRYPOINT":
            image.entrypoint = words
        elif step.name == "CMD":
            image.command = words
        else:
            image.health = words


def _copy(rest: str, image: Image, stages: Mapping[str, Image], context: Path) -> None:
    words = shlex.split(rest)
    source_root = context
    if words[0].startswith("--from="):
        source_root = stages[words.pop(0).removeprefix("--from=")].root.path("/")
    *sources, target = words
    place = image.root.path(target if target.startswith("/") else f"{image.directory}/{target}")
    for source in sources:
        one = source_root / source.lstrip("/")
        if one.is_dir():  # its content, as Docker does it; links stay links
            place.mkdir(parents=True, exist_ok=True)
            run(["cp", "-a", f"{one}/.", str(place)])
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            run(["cp", "-a", str(one), str(place)])

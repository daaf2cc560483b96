"""docker-compose.yml and exporter/Dockerfile: by their text, and played as a whole with Debian's programs.

No engine runs here. The services run as processes in roots and a network of their own (tests/containers): the image of
exporter/Dockerfile by its own steps, the others by Debian's programs with the very files that the compose file mounts.
Grafana is the one that is not played: Debian has none; its files are held against its schema in tests/grafana.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from containers.dockerfile import steps

REPOSITORY = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (REPOSITORY / "exporter/Dockerfile").read_text()
UNSHARE = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
MAY_PLAY = os.geteuid() == 0 and subprocess.run([*UNSHARE, "--net", "true"], check=False).returncode == 0
OURS = [name for name, said in SERVICES.items() if "build" in said]

every_service = pytest.mark.parametrize("name", SERVICES)


def test_docker_compose_accepts_the_file() -> None:
    config = ["docker-compose", "--profile", "incident", "config"]
    ended = subprocess.run(config, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "WARN" not in ended.stderr
    assert set(yaml.safe_load(ended.stdout)["services"]) == set(SERVICES)


def test_the_stack_is_whole() -> None:
    assert set(SERVICES) == {
        *("secrets", "postgres", "pgbouncer", "shop", "customers", "incident", "batsignal"),
        *("prometheus", "pager", "alertmanager", "grafana"),
    }
    assert SERVICES["incident"]["profiles"] == ["incident"]


@every_service
def test_an_image_is_ours_or_pinned_to_a_release(name: str) -> None:
    image = SERVICES[name]["image"]
    assert name in OURS or re.fullmatch(r"[\w/]+:v?\d+\.\d+(\.\d+)?[\w.-]*", image), image


@every_service
def test_a_service_has_a_health_check_or_listens_nowhere(name: str) -> None:
    said = SERVICES[name]
    checked = "test" in said.get("healthcheck", {}) or (name in OURS and "healthcheck" not in said)
    assert checked or name in {"secrets", "customers"}


@every_service
def test_a_port_is_open_on_this_machine_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@every_service
def test_what_a_service_mounts_from_here_is_there_and_is_not_written(name: str) -> None:
    for mount in SERVICES[name].get("volumes", []):
        source, _, *options = mount.split(":")
        if source.startswith("."):
            assert (REPOSITORY / source).exists(), source
            assert options == ["ro"]
        else:
            assert source in COMPOSE["volumes"]


@pytest.mark.parametrize("name", OURS)
def test_what_we_build_runs_without_rights_on_a_file_system_that_it_cannot_write(name: str) -> None:
    said = SERVICES[name]
    assert said["read_only"] is True
    assert said["cap_drop"] == ["ALL"]
    assert said["security_opt"] == ["no-new-privileges:true"]


def test_no_secret_stands_in_any_file() -> None:
    files = [REPOSITORY / "docker-compose.yml", *(REPOSITORY / "compose").iterdir()]
    for path in files:
        text = path.read_text()
        assert not re.search(r"://[^/\s:@]+:[^@\s]+@", text), path
        assert not re.search(r"(?i)^[^#\n]*password\s*(=|:\s)\s*\S", text, re.MULTILINE), path
    for said in SERVICES.values():
        for key, value in said.get("environment", {}).items():
            assert "PASSWORD" not in key or value.startswith("/run/secrets/"), key


def test_the_image_is_pinned_and_hashed_and_belongs_to_nobody_special() -> None:
    found = steps(DOCKERFILE)
    bases = {step.rest.split()[0] for step in found if step.name == "FROM"}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-bookworm", bases.pop())
    text = " ".join(step.rest for step in found if step.name == "RUN")
    assert text.count("pip install") == text.count("--require-hashes -r requirements.lock") == 1
    last = {step.name: step.rest for step in found}
    assert last["USER"] == "10001:10001"
    assert last["STOPSIGNAL"] == "SIGTERM"
    assert "curl" not in last["HEALTHCHECK"]


def test_an_instruction_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="not known here: ADD"):
        steps("FROM x\nADD a b")


def test_what_the_build_copies_is_not_ignored() -> None:
    wanted = {
        step.rest.split()[0].split("/")[0]
        for step in steps(DOCKERFILE)
        if step.name == "COPY" and not step.rest.startswith("--from")
    }
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == wanted


@pytest.mark.takes(seconds=120)
@pytest.mark.timeout(600)
def test_the_stack_comes_up_and_its_incident_pages(tmp_path: Path) -> None:
    assert MAY_PLAY, "roots and networks of their own want the rights of a container engine: root, and namespaces"
    ended = subprocess.run(
        [*UNSHARE, sys.executable, "-m", "containers.play", str(tmp_path)],
        cwd=REPOSITORY / "tests",
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "tests")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-6000:].replace("\\n", "\n")
    seen = json.loads(ended.stdout)
    assert re.search(r"\d+\.\d+", seen["version"])
    assert int(seen["runbooks"].split()[-1]) == len(list((REPOSITORY / "alerts/runbooks").glob("*.md")))
    check_secrets(seen["secrets"])
    assert seen["secrets_code"] == 0
    assert seen["secrets_again"] == seen["secrets"]
    assert seen["privileged"] == "1"
    assert seen["rules"] == len(list((REPOSITORY / "alerts").glob("*.rules.yml")))
    assert seen["lit_before"] == []
    # On a busy machine sessions of the version before can be among those held, and then the service alone is named.
    assert re.search(
        r"^\[pager\] firing critical BatSignalLeak: web(@2\.4\.0)? leaks connections", seen["page"], re.MULTILINE
    )
    assert re.search(r"^\[pager\]     .*[Rr]oll back web@2\.4\.0 to 2\.3\.9\.", seen["page"], re.MULTILINE)
    (leak,) = [signal for signal in seen["lit"] if signal["kind"] == "leak"]
    assert (leak["server"], leak["subject"]["application"], leak["deploy"]["version"]) == ("shop-db", "web", "2.4.0")
    assert {name: seen["codes"][name] for name in OURS} == dict.fromkeys(OURS, 0)
    for password, _, _ in seen["secrets"].values():
        assert password.strip() not in seen["daemon_log"]


def check_secrets(made: dict[str, list[str]]) -> None:
    """Each is its service's alone, and no two passwords are the same."""
    assert {name: (owner, mode) for name, (_, owner, mode) in made.items()} == {
        "batsignal-secrets/pgpass": ("10001", "0o400"),
        "grafana-secrets/admin_password": ("472", "0o400"),
        "pgbouncer-secrets/userlist.txt": ("70", "0o400"),
        "postgres-secrets/batsignal": ("999", "0o400"),
        "postgres-secrets/shop": ("999", "0o400"),
        "postgres-secrets/superuser": ("999", "0o400"),
        "shop-secrets/pgpass": ("10001", "0o400"),
    }
    passwords = [made[name][0] for name in made if name.startswith(("postgres-", "grafana-"))]
    assert len(set(passwords)) == 4
    assert all(re.fullmatch(r"[0-9a-f]{48}", password) for password in passwords)

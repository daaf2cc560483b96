"""What docs/deploying.md tells people to paste, run for real: roles, configurations, the unit of systemd."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from batsignal.cli import app
from batsignal.config import load
from batsignal.drills.embedded import EmbeddedServer
from daemon_home import Home, Until
from majors import major_of

REPOSITORY = Path(__file__).parents[2]
DOCUMENT = (REPOSITORY / "docs" / "deploying.md").read_text(encoding="utf-8")
UNIT = REPOSITORY / "exporter" / "batsignal.service"
ROLES = "batsignal, batsignal_emergency"


def blocks(kind: str) -> list[str]:
    """Return the code blocks of a kind, in order."""
    found = re.findall(rf"^```{re.escape(kind)}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert found, f"no block of {kind}"
    return found


@pytest.fixture
def home(tmp_path: Path, postgres: EmbeddedServer, sessions: Any, until: Until) -> Iterator[Home]:
    """Return a home whose server has the document's roles."""
    sessions.run(postgres, *blocks("sql"))
    if int(major_of(postgres)) >= 16:
        sessions.run(postgres, *blocks("sql 16"))
    with ExitStack() as stack:
        yield Home(tmp_path, postgres, until, stack)
    left = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'batsignal%'"
    until(lambda: not sessions.run(postgres, left), "the last of them to end")
    sessions.run(postgres, f"DROP ROLE {ROLES}")


def test_the_roles_and_the_config_are_all_that_it_needs(home: Home) -> None:
    (text,) = blocks("yaml batsignal")
    config = yaml.safe_load(text.replace("@127.0.0.1:5432/", f"@127.0.0.1:{home.server.port}/"))
    del config["endpoints"]  # nothing answers at that address here
    config["store"]["path"] = str(home.folder / Path(config["store"]["path"]).name)
    for name in (config["web"]["deploy_token_file"], config["web"]["release_token_file"]):
        (home.folder / name).write_text("n0t-guessed\n")
    (home.folder / "batsignal.yml").write_text(yaml.safe_dump(config))
    checked = home.command("check", "--config.file", "batsignal.yml")
    assert checked.returncode == 0, checked.stdout
    assert "ok   server db1: `batsignal release` may end other roles' sessions" in checked.stdout
    assert "FAIL" not in checked.stdout


@pytest.mark.parametrize(
    ("made", "used"),
    [
        ("useradd --system", "-o batsignal"),
        ("useradd --system", "chown batsignal:"),
        ("install -d /etc/batsignal", "cd /etc/batsignal"),
        ("/var/lib/batsignal   ", "batsignal check --config.file"),
        ("python3 -m venv /opt/batsignal", "ln -s /opt/batsignal/bin/batsignal"),
        ("ln -s /opt/batsignal/bin/batsignal", "batsignal check --config.file"),
        ("> pgpass", "PGPASSFILE=/etc/batsignal/pgpass batsignal check"),
        ("> pgpass", "systemctl enable --now"),
    ],
)
def test_whoever_pastes_from_top_to_bottom_has_made_what_a_command_uses(made: str, used: str) -> None:
    assert -1 < DOCUMENT.find(made) < DOCUMENT.find(used)


def test_the_config_as_it_stands_is_one(tmp_path: Path) -> None:
    for name in ("deploy_token", "release_token"):
        (tmp_path / name).write_text("n0t-guessed\n")
    (text,) = blocks("yaml batsignal")
    (tmp_path / "batsignal.yml").write_text(text)
    config = load(str(tmp_path / "batsignal.yml"), {})
    assert (len(config.servers), len(config.endpoints)) == (1, 1)


def test_the_manifest_of_kubernetes_fits_together(tmp_path: Path) -> None:
    (text,) = blocks("yaml kubernetes")
    config_map, deployment, service = yaml.safe_load_all(text)
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
    tokens = next(volume["secret"] for volume in pod["volumes"] if volume["name"] == "tokens")
    config = yaml.safe_load(config_map["data"]["batsignal.yml"])
    for key in ("deploy_token_file", "release_token_file"):
        path = Path(config["web"][key])
        assert str(path.parent) == mounts["tokens"]
        assert path.name in {item["path"] for item in tokens["items"]}
        (tmp_path / path.name).write_text("n0t-guessed\n")
        config["web"][key] = str(tmp_path / path.name)
    (tmp_path / "batsignal.yml").write_text(yaml.safe_dump(config))
    (variable,) = container["env"]
    loaded = load(str(tmp_path / "batsignal.yml"), {variable["name"]: "postgresql://batsignal@db1/postgres"})
    (port,) = container["ports"]
    assert loaded.web.listen_address == f"0.0.0.0:{port['containerPort']}"
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]


def test_the_job_and_the_rules_are_taken_by_prometheus(tmp_path: Path) -> None:
    (text,) = blocks("yaml prometheus")
    exported = re.search(r"batsignal assets export (\S+)", DOCUMENT)
    assert exported is not None
    assert exported[1] in text
    (tmp_path / "prometheus.yml").write_text(text.replace(exported[1], str(REPOSITORY)))
    command = ["promtool", "check", "config", str(tmp_path / "prometheus.yml")]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "leaks.rules.yml" in checked.stdout


def test_the_unit_is_one_that_systemd_takes_and_takes_every_right_away(tmp_path: Path) -> None:
    unit = UNIT.read_text(encoding="utf-8")
    (start,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    program, *arguments = shlex.split(start)
    placed = tmp_path / UNIT.name
    placed.write_text(unit.replace(program, sys.executable))
    verified = subprocess.run(["systemd-analyze", "verify", str(placed)], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    # From 0 (nothing can be done) to 10 (everything): below 2 is what systemd itself calls OK.
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(placed)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert rated.returncode == 0, rated.stdout
    assert arguments[0] == "run"
    help_text = CliRunner().invoke(app, ["run", "--help"]).stdout
    assert [one for one in arguments if one.startswith("--") and one not in help_text] == []


def test_the_commands_and_their_options_are_those_that_there_are() -> None:
    text = DOCUMENT.replace("\\\n", " ")
    found = re.findall(
        r"^(?:.*[ /])?batsignal ((?:deploy |assets )?(?:check|run|mark|verify|export|release|report)\b.*)$",
        text,
        re.MULTILINE,
    )
    named = {}
    for line in found:
        words = [word for word in line.split() if re.fullmatch(r"[a-z-]+[.a-z-]*", word)]
        command = tuple(words[: 2 if words[0] in {"deploy", "assets"} else 1])
        named.setdefault(command, set()).update(word for word in words if word.startswith("--"))
    assert {
        ("check",),
        ("deploy", "mark"),
        ("deploy", "verify"),
        ("assets", "export"),
        ("release",),
        ("report",),
    } <= set(named)
    for command, options in named.items():
        shown = CliRunner().invoke(app, [*command, "--help"]).stdout
        assert {option for option in options if option not in shown} == set(), command


def test_the_service_monitor_names_the_job_as_the_rules_want_it() -> None:
    (text,) = blocks("yaml operator")
    monitor = yaml.safe_load(text)
    (kubernetes,) = blocks("yaml kubernetes")
    *_, service = yaml.safe_load_all(kubernetes)
    # The operator calls a job after its Service, unless a `jobLabel` is given.
    assert "jobLabel" not in monitor["spec"]
    assert service["metadata"]["name"] == "batsignal"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= {
        port["name"] for port in service["spec"]["ports"]
    }

"""`batsignal assets export` into folders that are empty, half full, or none."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from batsignal import assets
from batsignal.cli.assets import export
from batsignal.errors import ConfigError, UnreachableError

REPOSITORY = Path(__file__).parents[3]


def shipped() -> dict[str, bytes]:
    """Return what a user is to get, read off the repository's own folders."""
    return {
        str(path.relative_to(REPOSITORY)): path.read_bytes()
        for name in assets.NAMES
        for path in (REPOSITORY / name).rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"} and not path.name.startswith(".")
    }


def written(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_file_of_the_folders_is_written_and_named(tmp_path: Path, capsys: Any) -> None:
    target = tmp_path / "new" / "folder"
    assert export(str(target), force=False) == 0
    assert written(target) == shipped()
    assert {"alerts/leaks.rules.yml", "alerts/alertmanager.yml", "alerts/runbooks/BatSignalLeak.md"} <= shipped().keys()
    named = capsys.readouterr().out.splitlines()
    assert named == [f"wrote {target / name}" for name in sorted(shipped(), key=lambda name: Path(name).parts)]


def test_a_second_time_nothing_is_in_the_way(tmp_path: Path, capsys: Any) -> None:
    export(str(tmp_path), force=False)
    capsys.readouterr()
    assert export(str(tmp_path), force=False) == 0
    assert {line.partition(" /")[0] for line in capsys.readouterr().out.splitlines()} == {"is there already"}


def test_what_was_changed_is_kept_and_nothing_else_is_written_beside_it(tmp_path: Path) -> None:
    mine = tmp_path / "alerts" / "alertmanager.yml"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(ConfigError, match=r"alertmanager\.yml with other content; --force overwrites"):
        export(str(tmp_path), force=False)
    assert written(tmp_path) == {"alerts/alertmanager.yml": b"mine"}


def test_force_overwrites_what_differs(tmp_path: Path, capsys: Any) -> None:
    export(str(tmp_path), force=False)
    mine = tmp_path / "alerts" / "alertmanager.yml"
    mine.write_text("mine")
    capsys.readouterr()
    assert export(str(tmp_path), force=True) == 0
    assert written(tmp_path) == shipped()
    assert f"wrote {mine}\n" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["alerts/alertmanager.yml", "alerts"])
@pytest.mark.parametrize("force", [False, True])
def test_what_stands_there_and_can_be_no_such_file_is_an_error(tmp_path: Path, name: str, force: bool) -> None:
    in_the_way = tmp_path / name
    if name == "alerts":
        in_the_way.write_text("a file")
    else:
        in_the_way.mkdir(parents=True)
    with pytest.raises(ConfigError, match=str(in_the_way)) as caught:
        export(str(tmp_path), force=force)
    assert caught.value.exit_code == 2


def test_a_copy_without_assets_says_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "_HERE", tmp_path)
    monkeypatch.setattr(assets, "_REPOSITORY", tmp_path)
    with pytest.raises(UnreachableError, match="alerts/, grafana/"):
        export(str(tmp_path / "out"), force=False)


def test_a_copy_that_lost_its_links_finds_them_in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "_HERE", REPOSITORY / "docs")
    assert assets.folder("alerts") == REPOSITORY / "alerts"


@pytest.mark.parametrize("directory", ["", " "])
def test_an_empty_argument_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^DIR: expected the path of a folder, got an empty text"):
        export(directory, force=False)
    assert list(tmp_path.iterdir()) == []


def test_the_readmes_command_puts_the_addresses_into_every_link(tmp_path: Path) -> None:
    export(str(tmp_path), force=False)
    (command,) = (
        line
        for line in (REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("sed -i")
    )
    subprocess.run(["sh", "-c", command.replace("~/batsignal-assets", str(tmp_path))], check=True)
    texts = written(tmp_path)
    left = [
        name for name, text in texts.items() if b"http://localhost:9988" in text or b"http://localhost:3000" in text
    ]
    assert left == []
    assert b"https://batsignal.example.com" in texts["grafana/dashboards/batsignal.json"]
    assert b"https://grafana.example.com" in texts["alerts/leaks.rules.yml"]

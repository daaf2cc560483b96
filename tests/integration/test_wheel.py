"""What is installed from the wheel, in a place that knows nothing of the repository."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from batsignal import assets

REPOSITORY = Path(__file__).parents[2]
NEEDED = ("pyproject.toml", "README.md", "LICENSE", "exporter", "alerts", "grafana")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the repository, and return a folder with what it installs."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in NEEDED:
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, source / name, symlinks=True, ignore=ignored)
        elif (REPOSITORY / name).exists():
            shutil.copy(REPOSITORY / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(source)], check=True)
    (wheel,) = folder.glob("batsignal-*.whl")
    shutil.rmtree(source)
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)], check=True)
    # What it depends on comes from here: only the package itself is under test.
    (folder / "site" / "needed").mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "batsignal" not in path.name.lower() and path.suffix != ".pth":
            (folder / "site" / "needed" / path.name).symlink_to(path)
    return folder / "site"


def run(site: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{site}:{site / 'needed'}"}
    command = [sys.executable, "-S", "-m", "batsignal", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_what_commands_need_is_in_the_wheel_and_the_assets_are_exported_from_it(site: Path, tmp_path: Path) -> None:
    done = run(site, "assets", "export", "here", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for name in assets.NAMES:
        wanted = {path: (REPOSITORY / name / path).read_bytes() for path in assets.files(name)}
        there = {path.relative_to(tmp_path / "here" / name): path for path in (tmp_path / "here" / name).rglob("*")}
        assert {path: file.read_bytes() for path, file in there.items() if file.is_file()} == wanted
    assert "wrote here/alerts/leaks.rules.yml\n" in done.stdout
    # All that stands beside the code, and the code itself.
    package = site / "batsignal"
    ours = REPOSITORY / "exporter" / "batsignal"
    data = {
        path.relative_to(ours)
        for path in ours.rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"} and "assets" not in path.parts
    }
    assert data
    assert {path for path in data if not (package / path).is_file()} == set()
    modules = {path.relative_to(ours) for path in ours.rglob("*.py") if "assets" not in path.relative_to(ours).parts}
    assert {path for path in modules if not (package / path).is_file()} == set()
    assert not list((package / "assets").rglob("*/*.py"))

"""The package in `examples/plugin-package`, built, installed, found by its entry points, tested, and upgraded."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.harness.gateway import DEADLINE, ROOT, Gateway, curl, portico, portico_here, wait_for

PACKAGE = ROOT / "examples" / "plugin-package"
CONFIG = """
routes:
  - path: /whoami
    tenant-card: {}
    policies: [tenant: {domain: example.com, tenants: {acme: Acme Ltd}}]
"""

pytestmark = pytest.mark.skipif(find_spec("hatchling") is None, reason="hatchling is not there to build the package")


def install(source: Path, site: Path) -> None:
    """Install the package without asking anyone: into a folder, with the build backend that is here."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    command += ["--no-deps", "--no-build-isolation", "--upgrade", "--target", str(site), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=4 * DEADLINE)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the package, whose code may be changed and in whose folder a build may leave things."""
    return Path(shutil.copytree(PACKAGE, tmp_path_factory.mktemp("source") / "package"))


@pytest.fixture(scope="module")
def installed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("site")
    install(source, site)
    return site


@pytest.fixture
def site(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have processes that are started find the package, and nothing of its source."""
    before = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(installed), str(ROOT / "src"), *before]))
    return installed


def test_its_own_tests_pass(site: Path, tmp_path: Path) -> None:
    shutil.copytree(PACKAGE / "tests", tmp_path / "tests")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=4 * DEADLINE)
    assert done.returncode == 0, done.stdout
    assert "6 passed" in done.stdout


def test_its_readme_shows_a_configuration_that_loads(site: Path, tmp_path: Path) -> None:
    texts = [path.read_text() for path in (PACKAGE / "README.md", *sorted(PACKAGE.glob("src/*/tenant*.py")))]
    shown = [found for text in texts for found in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    assert len(shown) == 3
    for text in shown:
        (tmp_path / "portico.yaml").write_text(text)
        assert portico("check", "portico.yaml", cwd=tmp_path).code == 0
    assert '"tenant-card"' in portico("schema", "portico.yaml", cwd=tmp_path).out


def test_it_imports_nothing_of_portico_but_its_public_faces() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert set(re.findall(r"^from (portico\.[\w.]+) import", path.read_text(), re.MULTILINE)) <= {
            "portico.plugin",
            "portico.testing",
        }


def test_its_new_code_takes_new_processes(site: Path, source: Path, tmp_path: Path) -> None:
    def card() -> str:
        return str(curl("-H", "Host: acme.example.com", f"{gateway.url}/whoami").json["greeting"])

    with Gateway(tmp_path, CONFIG) as gateway:
        gateway.agent_answers()
        assert card() == "Hello"
        assert curl(f"{gateway.url}/whoami").status == 404
        file = source / "src" / "portico_tenants" / "tenant_card.py"
        file.write_text(file.read_text().replace('"greeting": self.config.greeting', '"greeting": "Ahoy"'))
        install(source, site)
        gateway.file.write_text(gateway.file.read_text() + "shutdown_timeout: 5s\n")
        assert portico_here("reload", str(gateway.file)).code == 0
        assert card() == "Hello"  # the worker has the module that it has
        workers = gateway.worker_pids()
        os.kill(gateway.popen.pid, signal.SIGUSR2)
        wait_for(lambda: set(gateway.worker_pids()).isdisjoint(workers) and gateway.worker_pids(), "new workers")
        wait_for(lambda: card() == "Ahoy", "the new code")

"""The retrievers with the frameworks themselves, in an environment of its own.

They are large, and LangChain's tests bring plugins of pytest.
"""

from __future__ import annotations

import os
import site
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_CHECKS = _ROOT / "tests" / "soak" / "frameworks"
# `langchain-tests` has LangChain's own tests for retrievers. LlamaIndex has none.
_ALSO = ["langchain-tests>=1.1,<2", "duckdb>=2", "polars>=2", "pytest-asyncio"]


@pytest.mark.soak
def test_the_retrievers_work_with_the_frameworks(tmp_path: Path, postgres_folder: Path, postgres: str) -> None:
    del postgres  # it runs
    python = _environment(tmp_path / "venv")
    environment = {**os.environ, "TEST_POSTGRES": str(postgres_folder)}
    options = ("asyncio_mode=auto", "asyncio_default_fixture_loop_scope=function", "filterwarnings=default")
    line = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"-o{option}" for option in options)]
    checks = [str(path) for path in sorted(_CHECKS.glob("check_*.py"))]
    assert len(checks) == 3
    done = subprocess.run(
        [*line, *checks], env=environment, cwd=_ROOT, capture_output=True, text=True, check=False, timeout=1200
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _environment(folder: Path) -> Path:
    """An environment that has all packages of this one, and those of the frameworks."""
    venv.create(folder, with_pip=True, symlinks=True)
    python = folder / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    here = next(path for path in site.getsitepackages() if Path(path).is_dir())
    (packages / "development.pth").write_text(f"import site; site.addsitedir({here!r})\n")
    extras = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = [*extras["langchain"], *extras["llamaindex"], *_ALSO]
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *wanted], check=True, timeout=1200)
    return python

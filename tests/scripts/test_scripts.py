"""The two commands of a fresh machine say exactly what is missing, and TAB works in a real shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ["bash", "dirname", "readlink", "mkdir", "flock", "mktemp", "cat", "rm", "env"]


def bare_machine(tmp_path: Path, *programs: str) -> dict[str, str]:
    """An environment whose PATH has the basic tools and `programs` only."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in (*TOOLS, *programs):
        found = shutil.which(name)
        assert found, name
        (folder / name).symlink_to(found)
    return {"PATH": str(folder), "HOME": str(tmp_path), "HAPTK_VENV": str(tmp_path / "venv")}


def run(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts" / "haptk", "--version"], env=env, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_missing_compiler_is_named_with_its_package(tmp_path: Path) -> None:
    env = bare_machine(tmp_path)
    (tmp_path / "bin" / "python3").symlink_to(sys.executable)
    env["HAPTK_PYTHON"] = sys.executable
    done = run(env)
    assert done.returncode == 69
    assert "C compiler" in done.stderr
    assert "apt-get install gcc" in done.stderr


def test_bash_completes_commands(tmp_path: Path) -> None:
    """The installed script, sourced by a real bash, offers `heartbeat` for `haptk he<TAB>`."""
    script = tmp_path / "haptk.bash"
    done = subprocess.run(
        [sys.executable, "-m", "haptk", "completion", "bash"], capture_output=True, text=True, check=True
    )
    script.write_text(done.stdout)
    program = (
        f"source {script}; COMP_WORDS=(haptk he); COMP_CWORD=1; _haptk_completion haptk he haptk; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    shown = subprocess.run(
        ["bash", "-c", program], capture_output=True, text=True, env={**os.environ, "PATH": path}, check=True
    )
    assert shown.stdout.split() == ["heartbeat"]

"""Every haproxy.cfg of the tests that `-c` accepts starts, and what it refuses does not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from haptk.io import clock
from tests.ports import free_ports

TESTS = Path(__file__).parents[1]
FILES = sorted(TESTS.glob("render/golden/*/*/etc/haproxy/haproxy.cfg")) + sorted(TESTS.glob("cli/found/*.cfg"))
PROGRAM = [str(Path(sys.executable).parent / "haptk"), "proxy"]


def shapes() -> dict[str, str]:
    """The files that differ in more than addresses, by the first one's name."""
    found: dict[str, str] = {}
    for path in FILES:
        found.setdefault(re.sub(r"\d+(\.\d+){3}", "A", path.read_text()), str(path.relative_to(TESTS)))
    return {name: text for text, name in found.items()}


def at_home(text: str, folder: Path) -> str:
    """The same file on free ports, with its files in `folder`, as the user that runs the tests."""
    ports = iter(free_ports(32))
    text = re.sub(r"(?m)^(\s*(?:bind|peer \S+) )\S*:\d+", lambda line: f"{line[1]}127.0.0.1:{next(ports)}", text)
    text = re.sub(r"(/var)?/(run|lib)/haproxy", str(folder), text)
    text = re.sub(r"\bmaxconn \d+", "maxconn 100", text)  # what this machine's limits allow
    return re.sub(r"(?m)^\s*(chroot|user|group|daemon)\b.*$", "", text)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", sorted(shapes()))
def test_what_is_accepted_starts(name: str, tmp_path: Path) -> None:
    config = tmp_path / "haproxy.cfg"
    config.write_text(at_home((TESTS / name).read_text(), tmp_path))
    checked = subprocess.run([*PROGRAM, "-c", "-f", str(config)], capture_output=True, text=True, check=False)
    said = tmp_path / "said"
    with said.open("wb") as out:
        child = subprocess.Popen([*PROGRAM, "-f", str(config)], stdout=out, stderr=out, cwd=tmp_path)
    try:
        deadline = clock.monotonic() + 60
        while child.poll() is None and "serving on" not in said.read_text():
            assert clock.monotonic() < deadline, said.read_text()
            clock.sleep(0.05)
        assert (child.poll() is None) == (checked.returncode == 0), (checked.stderr, said.read_text())
    finally:
        child.kill()
        child.wait(10)

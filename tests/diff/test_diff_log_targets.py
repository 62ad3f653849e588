"""How often a line is sent: `log` and `log global` in the defaults, in the section, in both, beside HAProxy."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.diff.rig import Pair, Upstreams, upstreams

# name: (a defaults section of its own, lines of the section)
SECTIONS = {
    "once": ("", "log global"),
    "twice": ("", "log global\nlog global"),
    "inherited": ("log global", ""),
    "both": ("log global", "log global"),
    "own": ("", "log @LOG@ local5"),
    "owntwice": ("", "log @LOG@ local5\nlog @LOG@ local5"),
    "ownboth": ("log @LOG@ local5", "log @LOG@ local5"),
    "beside": ("", "log global\nlog @LOG@ local5"),
    "between": ("log global", "log @LOG@ local5\nlog global"),
    "same": ("log global", "log @LOG@ local0"),
    "reset": ("log global", "no log\nlog global"),
    "reset2": ("log global\nlog @LOG@ local5", "no log"),
    "after": ("log @LOG@ local5\nlog global", "log global\nlog @LOG@ local6"),
    "none": ("", ""),
}


def config(host: str, ports: list[int], servers: Upstreams, dead: int) -> str:
    text = "global\n    log @LOG@ local0\n    log @LOG@ local1 info\n    log @LOG@ local1 info\n"
    for (name, (above, lines)), port in zip(SECTIONS.items(), ports, strict=True):
        text += (
            f"defaults d{name}\n    mode http\n    timeout connect 5s\n    timeout client 5s\n    timeout server 5s\n"
        )
        text += "".join(f"    {line}\n" for line in (*above.splitlines(), "option httplog"))
        text += f"listen {name} from d{name}\n    bind {host}:{port}\n    log-tag {name}\n"
        text += "".join(f"    {line}\n" for line in lines.splitlines())
        text += f"    server s1 127.0.0.1:{servers.ports[0]}\n"
        text += f"    server gone 127.0.0.1:{dead} weight 0 check inter 100ms fall 1\n"
    return text


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with upstreams(1) as servers:
        both = Pair("fast", tmp_path_factory.mktemp("targets"), servers, list(SECTIONS), config)
        try:
            yield both
        finally:
            both.stop()


def counted(pair: Pair, index: int, name: str, case: str) -> Counter[str]:
    """How often each facility got the line of the exchange, and the one about the dead server."""
    log = pair.programs[index][1].log
    with log.changed:
        lines = [line for group in log.lines.values() for line in group if f" {name}[" in line]
    found: Counter[str] = Counter()
    for line in lines:
        kind = "traffic" if case in line else "server" if "Server" in line and "gone is " in line else ""
        if kind and (number := re.match(r"<(\d+)>", line)):
            found[f"{kind} local{int(number[1]) // 8 - 16}"] += 1
    return found


def sent(pair: Pair, index: int, name: str, case: str) -> Counter[str]:
    """What is counted once nothing more comes."""
    silent = name in ("none", "reset2")
    deadline = time.monotonic() + 10
    before: Counter[str] | None = None
    while time.monotonic() < deadline:
        found = counted(pair, index, name, case)
        if found == before and (silent or {one.split()[0] for one in found} == {"traffic", "server"}):
            break
        before = found
        time.sleep(0.3)
    return found


@pytest.mark.real("haproxy")
@pytest.mark.parametrize("name", SECTIONS)
def test_a_line_is_sent_as_often_as_haproxy_sends_it(pair: Pair, name: str) -> None:
    request = b"GET /only/@CASE@ HTTP/1.1\r\nHost: h\r\nX-Case: @CASE@\r\n\r\n"
    found: list[Counter[str]] = []
    for index in (0, 1):
        pair.one(index, name, request)
        case = f"/only/{pair.programs[index][1].kind}-{pair.number} "
        found.append(sent(pair, index, name, case))
    assert found[1] == found[0]


@pytest.mark.real("haproxy")
def test_log_global_takes_what_the_global_section_has_by_then(tmp_path: Path) -> None:
    """A section above it gets nothing, one between two of them the targets of the first."""
    names = ["above", "between", "below"]

    def placed(host: str, ports: list[int], servers: Upstreams, dead: int) -> str:
        def section(name: str) -> str:
            return (
                "defaults\n    mode http\n    timeout connect 5s\n    timeout client 5s\n    timeout server 5s\n    log global\n"
                f"listen {name}\n    bind {host}:{ports[names.index(name)]}\n    log global\n    option httplog\n"
                f"    server s1 127.0.0.1:{servers.ports[0]}\n"
            )

        return (
            section("above")
            + "global\n    log @LOG@ local1\n"
            + section("between")
            + "global\n    log @LOG@ local2\n"
            + section("below")
        )

    with upstreams(1) as servers:
        both = Pair("fast", tmp_path, servers, names, placed)
        try:
            found = []
            for index in (0, 1):
                for name in names:
                    both.one(
                        index, name, b"GET /path/ HTTP/1.1\r\nHost: h\r\nX-Case: @CASE@\r\nConnection: close\r\n\r\n"
                    )
                log = both.programs[index][1].log
                deadline = time.monotonic() + 10
                while len(log.lines.get("", [])) < 3 and time.monotonic() < deadline:
                    time.sleep(0.05)
                time.sleep(0.3)
                with log.changed:
                    lines = [line for line in log.lines.get("", []) if "GET" in line]
                found.append(sorted((line[:5], re.search(r"\] (\w+) ", line)[1]) for line in lines))  # type: ignore[index]
            assert found[1] == found[0]
            assert sorted(name for _, name in found[0]) == ["below", "below", "between"]
        finally:
            both.stop()

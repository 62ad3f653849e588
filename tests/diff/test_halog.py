"""The real halog reads haptk's lines: in every mode it says of them what it says of HAProxy's lines of the same traffic.

Durations and bytes are left out of the comparison: no two runs share them.
"""

from __future__ import annotations

import random
import re
import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.diff import log_worlds as worlds
from tests.diff.log_worlds import Actors, Exchange, Part, get
from tests.diff.test_diff_logs import RULES, SEED, Run, kinds

pytestmark = pytest.mark.real("haproxy", "halog")


def exact(out: str) -> list[str]:
    """The output as it is."""
    return out.splitlines()


def columns(*chosen: int) -> Callable[[str], list[str]]:
    """Some columns of a table, in an order of its own."""

    def read(out: str) -> list[str]:
        return sorted(
            " ".join(line.split()[at] for at in chosen if at < len(line.split())) for line in out.splitlines()
        )

    return read


def rows(out: str) -> list[str]:
    """The first word of each row: the values beside it are durations."""
    return [line.split()[0] for line in out.splitlines() if line.split()]


def kinds_of_row(out: str) -> list[str]:
    """Which rows there are, whatever the times in them."""
    return sorted({line.split()[0] for line in out.splitlines()})


# mode -> what of halog's answer both sides share
MODES: dict[str, Callable[[str], list[str]]] = {
    "-c": exact,
    "-st": exact,
    "-tc": exact,
    "-cc": exact,
    "-srv": columns(0, 1, 2, 3, 4, 5, 6, 7, 8),
    "-ic": columns(0, 1, -1),
    "-u": columns(0, 1, -1),
    "-uc": columns(0, 1, -1),
    "-ue": columns(0, 1, -1),
    "-ua": columns(0, 1, -1),
    "-ut": columns(0, 1, -1),
    "-uao": columns(0, 1, -1),
    "-uto": columns(0, 1, -1),
    "-uba": columns(0, 1, -1),
    "-ubt": columns(0, 1, -1),
    "-u -query": columns(0, 1, -1),
    "-pct": rows,
    "-gt": kinds_of_row,
    "-H -c": exact,
    "-H -st": exact,
    "-e -c": exact,
    "-E -c": exact,
    "-e -tc": exact,
    "-v -e -st": exact,
    "-hs 400:499 -c": exact,
    "-HS 200 -st": exact,
    "-tcn SH -c": exact,
    "-TCN -- -tc": exact,
    "-Q -c": exact,
    "-QS -c": exact,
    "-rt 60000 -c": exact,
    "-RT 60000 -c": exact,
    "-m 7 -st": exact,
}


def halog(mode: str, lines: list[str]) -> tuple[str, str]:
    """Its answer and what it complained about, of the lines as a syslog daemon writes them to a file: with a host."""
    text = "".join(re.sub(r"^<\d+>(\w{3} [ \d]\d [\d:]{8}) ", r"\1 localhost ", line) + "\n" for line in lines)
    done = subprocess.run(
        ["halog", *mode.split()], input=text.encode("latin-1"), capture_output=True, timeout=20, check=False
    )
    return done.stdout.decode("latin-1"), done.stderr.decode("latin-1")


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[str], list[str]]]:
    """HTTP lines, and TCP lines among them, of haproxy and of haptk; the same clients met both."""
    rng = random.Random(SEED + 1)
    web = [one for one in kinds() if b"/halfhang" not in one.raw] + worlds.generated(rng, 50)
    chosen = [
        Part("web", f"mode http\n{RULES}option httplog", web),
        Part("relay", "mode tcp\noption tcplog", [Exchange(get("/", "X-Do: eof"), rest_s=0.05)] * 3),
    ]
    actors, runs = Actors(), []
    directory = tmp_path_factory.mktemp("halog")
    try:
        for kind, host in (("haproxy", "127.0.0.1"), ("fast", "127.0.0.9")):
            runs.append(Run(kind, host, chosen, actors, directory))
        threads = [threading.Thread(target=run.play) for run in runs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        yield runs[0].raw, runs[1].raw
    finally:
        for run in runs:
            run.program.stop()
        actors.close()


@pytest.mark.parametrize("mode", MODES)
def test_halog_says_the_same(logged: tuple[list[str], list[str]], mode: str) -> None:
    theirs, ours = (halog(mode, [line.replace("127.0.0.9", "127.0.0.1") for line in lines]) for lines in logged)
    read = MODES[mode]
    assert read(ours[0]) == read(theirs[0])
    # what it could not read is what it cannot read of HAProxy's: lines of relays, in the modes for HTTP
    wrong = [re.findall(r"(\d+) parsing errors", said) for said in (ours[1], theirs[1])]
    assert wrong[0] == wrong[1]


def test_every_line_was_read(logged: tuple[list[str], list[str]]) -> None:
    assert len(logged[0]) == len(logged[1]) > 80
    web = [line for line in logged[1] if " web[" in line]
    out, said = halog("-st", web)
    assert " 0 parsing errors" in said
    assert sum(int(line.split()[1]) for line in out.splitlines()) == len(web)

"""What the commands that are polled cost to start: CPU of a whole process, against `python -c 'import click'`.

Interleaved rounds, because machines drift; the ratio of each round is taken, then its median. The aim is under 2.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.bench.child import cost_ms

HAPTK = str(Path(sys.executable).with_name("haptk"))
BASE = [sys.executable, "-c", "import click"]
COMMANDS = {"--help": [HAPTK, "--help"], "--version": [HAPTK, "--version"]}


def completion_env() -> dict[str, str]:
    return {**os.environ, "_HAPTK_COMPLETE": "bash_complete", "COMP_WORDS": "haptk he", "COMP_CWORD": "1"}


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """name -> {cpu_ms, ratio}, medians over the rounds; one uncounted round first."""
    cases = [(name, argv, dict(os.environ)) for name, argv in COMMANDS.items()] + [("TAB", [HAPTK], completion_env())]
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name, _, _ in cases}
    for number in range(rounds + 1):
        base = cost_ms(BASE, os.environ, check=True)[0]
        for name, argv, env in cases:
            own = cost_ms(argv, env, check=True)[0]
            if number:
                seen[name].append((own, own / base))
    return {
        name: {
            "cpu_ms": round(statistics.median(own for own, _ in rows), 1),
            "ratio": round(statistics.median(ratio for _, ratio in rows), 2),
        }
        for name, rows in seen.items()
    }


def main(argv: list[str]) -> int:
    rounds = int(argv[argv.index("--rounds") + 1]) if "--rounds" in argv else 15
    found = measure(rounds)
    if "--json" in argv:
        print(json.dumps(found, indent=2))
        return 0
    print(f"{'command':<12}{'CPU ms':>8}{'ratio to import click':>24}   (medians of {rounds} rounds; aim: under 2)")
    for name, row in found.items():
        print(f"{name:<12}{row['cpu_ms']:>8}{row['ratio']:>24}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

"""Rules on random heads: conditions, formats and edits of the compiled path, compared with core.acl and the reference.

    .venv/bin/python tests/fuzz/fuzz_rules.py [--seconds N] [--seed N]

Prints the seed first; a disagreement prints the question and both answers and ends with 1. For memory errors build the
extensions with CFLAGS=-fsanitize=address,undefined and preload libasan with PYTHONMALLOC=malloc.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.proxy.rule_worlds import World

ROUND = 2000  # a world keeps what it was asked


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    generator = random.Random(chosen.seed)
    end = time.monotonic() + chosen.seconds
    world = World()
    count = 0
    while time.monotonic() < end:
        count += 1
        if count % ROUND == 0:
            world = World()
        found = world.edits_disagreement(generator) if generator.random() < 0.4 else world.disagreement(generator)
        if found:
            print(f"after {count} questions:\n{found}")
            return 1
    print(f"{count} questions, no disagreement")
    return 0


if __name__ == "__main__":
    sys.exit(main())

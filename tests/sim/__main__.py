"""`scripts/sim --seeds N [--from M] [--jobs J]` runs many seeds; `--seed N` replays one and prints its transcript."""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import sys
import time
from collections import Counter

from tests.sim.scenarios import run_seed


def _one(seed: int) -> tuple[int, str, list[str]]:
    """The seed, what it violates, and what was in it: every kind of fault, and the number of machines."""
    gc.disable()  # a world is small; it is collected when it is over
    result = run_seed(seed)
    world = result.world
    if seed % 20 == 0:
        gc.collect()
    more = [f"{len(world.boxes) + (world.witnesses != ())} machines"] + ["leases"] * world.leases
    return seed, result.violation, [*world.faults, *more]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, help="replay this one and print its transcript")
    options = parser.parse_args()
    if options.seed is not None:
        result = run_seed(options.seed)
        print("\n".join(result.world.transcript))
        print(f"seed {options.seed}: {result.violation or 'all invariants hold'}")
        return 1 if result.violation else 0
    started = time.monotonic()
    found: Counter[str] = Counter()
    failed = 0
    with multiprocessing.Pool(options.jobs) as pool:
        for seed, violation, faults in pool.imap_unordered(
            _one, range(options.first, options.first + options.seeds), 16
        ):
            found.update(faults)
            if violation:
                failed += 1
                print(f"seed {seed}: {violation}\n  replay: scripts/sim --seed {seed}", flush=True)
    spent = time.monotonic() - started
    shares = (f"{name} {100 * number / options.seeds:.0f}" for name, number in found.most_common())
    print(f"seeds with each fault, in percent: {', '.join(shares)}")
    print(f"{options.seeds} seeds in {spent:.1f} s ({options.seeds / spent:.0f}/s), {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

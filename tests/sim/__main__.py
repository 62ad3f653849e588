"""`scripts/sim --seeds N [--from M] [--jobs J]` runs many seeds; `--seed N` replays one and prints its transcript."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time

from tests.sim.scenarios import run_seed


def _one(seed: int) -> tuple[int, str, int]:
    result = run_seed(seed)
    return seed, result.violation, len(result.world.transcript)


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
    failed = 0
    with multiprocessing.Pool(options.jobs) as pool:
        for seed, violation, _ in pool.imap_unordered(_one, range(options.first, options.first + options.seeds), 16):
            if violation:
                failed += 1
                print(f"seed {seed}: {violation}\n  replay: scripts/sim --seed {seed}", flush=True)
    spent = time.monotonic() - started
    print(f"{options.seeds} seeds in {spent:.1f} s ({options.seeds / spent:.0f}/s), {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

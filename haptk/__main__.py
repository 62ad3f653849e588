"""`python -m haptk` and the console script."""

from __future__ import annotations

import gc
import sys

PLUGIN = "check_haptk"


def arguments(program: str, given: list[str]) -> list[str]:
    """The arguments of a run under the name `program`: a link `check_haptk` or `check_haptk_KIND` is a plugin."""
    name = program.rpartition("/")[2]
    if name == PLUGIN:
        return ["check", "--plugin", *given]
    if name.startswith(PLUGIN + "_"):
        return ["check", "--plugin", name.removeprefix(PLUGIN + "_"), *given]
    return given


def main() -> None:
    """Run the command line and leave with its exit code."""
    # What is imported here lives as long as the process: looking for garbage in it is time lost, now and later.
    gc.disable()
    from haptk.io import descriptors

    descriptors.settle()
    from haptk.cli.app import haptk
    from haptk.cli.base import Settings, run

    gc.freeze()
    gc.enable()
    chosen = Settings()
    code = run(haptk, arguments(sys.argv[0], sys.argv[1:]), chosen)
    if chosen.leaves_at_once:
        from haptk.io import leave

        leave.at_once(code)
    sys.exit(code)


if __name__ == "__main__":
    main()

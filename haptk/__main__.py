"""`python -m haptk` and the console script."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    from haptk.cli.app import haptk
    from haptk.cli.base import run

    sys.exit(run(haptk))


if __name__ == "__main__":
    main()

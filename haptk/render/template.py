"""Templates of text files: jinja2 with undefined names refused, so that a typo is an error and never an empty line.

Values come from a Cluster that was accepted: the schema's patterns keep blanks, quotes and line ends out of every one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parent / "templates"
HEADER = "Written by haptk from cluster.toml; change that file and run `haptk apply`."


def fill(template: str, /, **values: Any) -> str:
    """The text of a template with these values."""
    import jinja2

    environment = jinja2.Environment(  # noqa: S701 (configuration files are no HTML; the schema checked the values)
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string((DIRECTORY / template).read_text()).render(header=HEADER, **values)

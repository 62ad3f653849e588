"""docs/reference/errors.md is generated from the classes; `--regenerate` rewrites it."""

from __future__ import annotations

from pathlib import Path

import pytest

from haptk.errors import HaptkError, all_error_classes

PATH = Path(__file__).resolve().parents[2] / "docs" / "reference" / "errors.md"
HEAD = """# Exit codes and errors

Generated from `haptk/errors.py`. 0 is success, 1 a judgement that failed (a drill), 2 a usage error or, in `diff`, a
difference. 130 is an interruption from the keyboard, 141 a reader that went away (`haptk ... | head`). Checks and the
contracts of cluster managers have codes of their own, which a log on a full disk does not change. An error is one line on
stderr; with `--json` it is one object. `--debug` adds the trace.

| exit code | error | who must act | message |
|---|---|---|---|
"""


def document() -> str:
    rows = []
    for cls in all_error_classes():
        if "exit_code" in vars(cls) or cls.__base__ is HaptkError:
            rows.append(f"| {cls.exit_code} | {cls.__name__} | {cls.who} | `{cls.template}` |")
    return HEAD + "\n".join(rows) + "\n"


def test_the_reference_is_what_the_code_says(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--regenerate"):
        PATH.write_text(document())
    assert PATH.read_text() == document()

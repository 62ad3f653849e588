"""The real programs judge the candidates before anything is replaced.

Candidates stand in a scratch tree that looks like the machine: each at its own path below it, and every mention of a
sibling (a check script in keepalived.conf) leads to the sibling's candidate. So a file is judged together with what it
will be used with, and nothing of the running tier has been touched.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from haptk.apply.plan import Plan
from haptk.errors import ConfigError, MissingProgram
from haptk.io.files import private_dir, write_atomic
from haptk.render.artefact import Artefact

LIMIT_S = 30.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Verdict:
    """What a program said; `skipped` is why it was not asked."""

    path: str
    program: str
    skipped: str = ""


def prove(plan: Plan, scratch: Path, *, strict: bool) -> list[Verdict]:
    """Have every changed file judged. Raises ConfigError with the program's words.

    `strict` (on the machine itself): a missing program is MissingProgram; else its files are skipped with a reason.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    private_dir(scratch)
    texts = {one.artefact.path: one.new.decode("utf-8", "replace") for one in plan.files}
    places = {path: str(scratch) + path for path in texts}
    for one in plan.files:
        place = Path(places[one.artefact.path])
        place.parent.mkdir(parents=True, exist_ok=True)
        text = texts[one.artefact.path]
        for path, candidate in places.items():
            if path != one.artefact.path:
                text = text.replace(path, candidate)
        write_atomic(place, text.encode(), one.artefact.mode)
    verdicts = []
    try:
        for one in plan.changes:
            verdicts.append(_judge(one.artefact, Path(places[one.artefact.path]), scratch, strict))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return verdicts


def _judge(one: Artefact, candidate: Path, scratch: Path, strict: bool) -> Verdict:
    if one.judged_here and not strict:
        return Verdict(one.path, one.validate[0], f"{one.validate[0]} can judge it only on the machine itself")
    programs = [program for program in (*one.needs, *one.validate[:1]) if not shutil.which(program, path=_PATH)]
    if programs:
        if strict:
            raise MissingProgram(program=programs[0], why=f"{one.path} needs it")
        return Verdict(one.path, programs[0], f"{programs[0]} is not installed here")
    if not one.validate:
        return Verdict(one.path, "", "no program judges this file alone")
    argv = [word.replace("{}", str(candidate)) for word in one.validate]
    try:
        done = subprocess.run(
            argv,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            errors="replace",
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(file=one.path, line=1, why=f"{argv[0]} did not judge it within {LIMIT_S:g} s") from error
    if done.returncode != 0:
        words = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        shown = "; ".join(word.replace(str(scratch), "") for word in words[:5]) or f"exit code {done.returncode}"
        raise ConfigError(file=one.path, line=_line(shown), why=f"{argv[0]} refuses it, nothing was changed: {shown}")
    return Verdict(one.path, argv[0])


def _line(words: str) -> int:
    """The line that the program complains about, where it says one."""
    found = re.search(r"(?:\bline |\[[^\]\s]*:|Line )(\d+)", words, re.IGNORECASE)
    return int(found[1]) if found else 1

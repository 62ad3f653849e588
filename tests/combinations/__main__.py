"""Random combinations of configuration words, played through haptk and through the real HAProxy; see README.md.

python -m tests.combinations run [--seed N] [--minutes N]      1 when something differs, with how to play it again
python -m tests.combinations replay SEED|DIRECTORY [-v]
python -m tests.combinations shrink SEED REGEX DIRECTORY       a smaller case with the same kind of difference
python -m tests.combinations summary
"""

from __future__ import annotations

import argparse
import json
import random
import re
import signal
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from tests.combinations.compare import alone, compare
from tests.combinations.configs import Config
from tests.combinations.rig import Rig
from tests.combinations.sessions import CALM, session
from tests.combinations.shrinker import shrink
from tests.combinations.wider import crowd, widen

KNOWN = Path(__file__).with_name("known.txt")
Case = dict[str, Any]
Kinds = list[tuple[str, str]]


def make(seed: int, count: int, calm: bool) -> Case:
    """The case of a seed: configuration, files, sessions, and what servers say to each request."""
    rng = random.Random(seed)
    config = Config(rng)
    wide = rng.random() < 0.6
    if wide:
        widen(rng, config.sections)
    CALM.on = calm
    sessions, plans = [], {}
    for n in range(count):
        made = crowd(rng, n, config.fronts) if wide and rng.random() < 0.15 else None
        one, more = made or session(rng, n, config.fronts)
        sessions.append(one)
        plans.update(more)
    return {"seed": seed, "config": config.text(), "files": config.files, "sessions": sessions, "plans": plans}


def both(rig: Rig, case: Case) -> tuple[Case, Case | None, Kinds]:
    """What HAProxy made of a case, what haptk did, and how they differ. Refusals of haptk are not differences here."""
    if rig.solo:
        mine = rig.run("haptk", case)
        return {"started": True}, mine, alone(mine)
    theirs = rig.run("haproxy", case)
    if not theirs["started"]:
        return theirs, None, []
    mine = rig.run("haptk", case)
    return theirs, mine, compare(case, theirs, mine)


def unknown(kinds: Kinds, case: Case) -> Kinds:
    """Without the kinds of known.txt: regular expressions, a reason in the comment above each."""
    whole = case["config"] + json.dumps([case["sessions"], case["plans"]])
    rules = []
    for line in KNOWN.read_text().splitlines():
        kind, _, when = line.partition(" WHEN ")
        if line and not line.startswith("#") and (not when or re.search(when, whole)):
            rules.append(re.compile(kind))
    return [one for one in kinds if not any(rule.search(one[0]) for rule in rules)]


def confirmed(rig: Rig, case: Case) -> tuple[Case, Case | None, Kinds]:
    """Differences that show twice; a crash need not."""
    theirs, mine, found = both(rig, case)
    found = unknown(found, case)
    for _ in range(2):
        if not found or all(kind.startswith("CRASH") for kind, _ in found):
            break
        again = {kind for kind, _ in both(rig, case)[2]}
        found = [one for one in found if one[0] in again or one[0].startswith("CRASH")]
    return theirs, mine, found


def run(options: argparse.Namespace) -> int:
    """Cases from a seed on until the time is over: 1 when there was a finding."""
    rig, totals, began = Rig(options.base, options.storm, options.sanitized), Counter[str](), time.monotonic()
    rig.solo = rig.solo or options.solo
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    seed = first = options.seed
    print(f"seed {first}", flush=True)
    try:
        while time.monotonic() - began < options.minutes * 60 and (not options.cases or seed < first + options.cases):
            case = make(seed, options.sessions, options.calm)
            theirs, mine, found = confirmed(rig, case)
            played = bool(mine and mine["started"])
            totals["cases"] += 1
            totals["haproxy refuses"] += not theirs["started"]
            totals["haptk refuses"] += bool(mine and not mine["started"])
            totals["played"] += played
            totals["sessions"] += len(case["sessions"]) * played
            totals["requests"] += sum(len(one["methods"]) for one in case["sessions"]) * played
            totals["findings"] += bool(found)
            tell(seed, found, out / f"found-{options.base}.jsonl", options)
            seed += 1
    finally:
        rig.close()
    print(", ".join(f"{count} {name}" for name, count in totals.items()), f"in {time.monotonic() - began:.0f} s")
    if options.sanitized and not totals["played"]:
        print("nothing was played", file=sys.stderr)
        return 1
    return 1 if totals["findings"] else 0


def tell(seed: int, found: Kinds, file: Path, options: argparse.Namespace) -> None:
    """A line for a case, and for a finding how to play it again."""
    with file.open("a") as lines:
        for kind, detail in found:
            lines.write(json.dumps({"seed": seed, "kind": kind, "detail": detail}) + "\n")
    if not found:
        print(seed, "equal", flush=True)
        return
    flags = f"--sessions {options.sessions}" + (" --calm" if options.calm else "")
    flags += " --solo" * options.solo
    how = f" --storm {options.storm}" * bool(options.storm) + " --sanitized" * options.sanitized
    print(f"FOUND by seed {seed}: python -m tests.combinations {flags} replay {seed}{how}", flush=True)
    for kind, detail in found:
        print(f"  {kind}\n      {detail[:300]}", flush=True)


def load(what: str, options: argparse.Namespace) -> Case:
    """The case of a seed or of a directory."""
    path = Path(what)
    if not path.is_dir():
        return make(int(what), options.sessions, options.calm)
    rest: Case = json.loads((path / "case.json").read_text())
    return rest | {"config": (path / "haproxy.cfg.in").read_text()}


def save(case: Case, where: Path) -> None:
    """A case as a directory: what a test keeps of a finding."""
    where.mkdir(parents=True, exist_ok=True)
    (where / "haproxy.cfg.in").write_text(case["config"])
    rest = {key: value for key, value in case.items() if key != "config"}
    used = {name for name in case["files"] if name in case["config"]}
    rest["files"] = {name: text for name, text in case["files"].items() if name in used}
    (where / "case.json").write_text(json.dumps(rest, indent=1) + "\n")


def replay(options: argparse.Namespace) -> int:
    """One case again, with all that was seen."""
    case, rig = load(options.what, options), Rig(options.base, options.storm, options.sanitized)
    rig.solo = rig.solo or options.solo
    try:
        theirs, mine, found = both(rig, case)
    finally:
        rig.close()
    if options.save:
        save(case, Path(options.save))
    if options.verbose:
        print(case["config"])
        print(json.dumps(case["sessions"])[:4000])
        for who in (theirs, mine):
            print(json.dumps({k: v for k, v in (who or {}).items() if k != "stat"}, indent=1)[:12000])
    for kind, detail in found:
        print(kind, "\n    ", detail[: options.width])
    return 1 if unknown(found, case) else 0


def smaller(options: argparse.Namespace) -> int:
    """Shrink a case and save it."""
    rig, pattern = Rig(options.base), re.compile(options.kind)

    def shows(case: Case) -> bool:
        try:
            return any(pattern.search(kind) for kind, _ in both(rig, case)[2])
        except (KeyError, OSError, ValueError, IndexError):
            return False  # a piece that the rest needs is gone

    try:
        case = shrink(load(options.what, options), shows, options.minutes)
    finally:
        rig.close()
    if case is None:
        print("it does not show", file=sys.stderr)
        return 1
    save(case, Path(options.out))
    print(case["config"], json.dumps(case["sessions"])[:3000])
    return 0


def summary(options: argparse.Namespace) -> int:
    """What was found, by kind."""
    kinds: dict[str, list[Case]] = defaultdict(list)
    for file in sorted(Path(options.out).glob("found-*.jsonl")):
        for line in file.read_text().splitlines():
            one = json.loads(line)
            kinds[one["kind"]].append(one)
    for kind, found in sorted(kinds.items(), key=lambda item: -len(item[1])):
        print(f"{len(found):4} {kind}   seeds {[one['seed'] for one in found][:5]}")
        if options.detail:
            print("       ", found[0]["detail"][: options.detail])
    return 0


def solitary(parser: argparse.ArgumentParser) -> None:
    """The ways to play a case without HAProxy beside it."""
    parser.add_argument("--storm", type=int, default=0, help="haptk alone, this many sessions at a time")
    parser.add_argument("--sanitized", action="store_true", help="haptk alone, the copy of scripts/test-sanitized")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=int, default=31000, help="first of a hundred ports; one hundred per process")
    parser.add_argument("--sessions", type=int, default=10, help="sessions of a generated case")
    parser.add_argument("--solo", action="store_true", help="haptk alone: for sanitizer builds")
    parser.add_argument("--calm", action="store_true", help="no heads near the limits, no garbage, no time-outs")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="generated cases from a seed on")
    one.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 24))
    one.add_argument("--cases", type=int, default=0, help="number of cases; 0: until the time is over")
    one.add_argument("--minutes", type=float, default=5)
    one.add_argument("--out", default=".combinations", help="directory for findings")
    solitary(one)
    one.set_defaults(call=run)
    one = commands.add_parser("replay", help="one case: a seed or a directory")
    one.add_argument("what")
    one.add_argument("--save", default="", help="directory to keep it in")
    one.add_argument("--verbose", "-v", action="store_true")
    one.add_argument("--width", type=int, default=700)
    solitary(one)
    one.set_defaults(call=replay)
    one = commands.add_parser("shrink", help="a smaller case with the same kind of difference")
    one.add_argument("what")
    one.add_argument("kind", help="regular expression")
    one.add_argument("out")
    one.add_argument("--minutes", type=float, default=3)
    one.set_defaults(call=smaller)
    one = commands.add_parser("summary", help="what was found, by kind")
    one.add_argument("--out", default=".combinations")
    one.add_argument("--detail", type=int, default=0)
    one.set_defaults(call=summary)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the proxy that runs is ended, too
    return int(options.call(options))


if __name__ == "__main__":
    sys.exit(main())

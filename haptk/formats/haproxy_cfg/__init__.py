"""haproxy.cfg: text in, sections of settings out, with every error and warning of the files at once.

`parse` reads sources line by line: words (words.py), conditional blocks (conditions.py), then the table of the
section the line stands in (globals.py, proxies.py, stats.py). A word that is not in the table is an error that names
it, says whether HAProxy 2.6 knows it, and lists what is accepted. Nothing is silently ignored: what has no effect
in haptk draws a warning.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath

from haptk.formats.haproxy_cfg import globals as global_table
from haptk.formats.haproxy_cfg import known, logs, proxies, resolvers, stats, units, words
from haptk.formats.haproxy_cfg.conditions import Blocks
from haptk.formats.haproxy_cfg.model import Args, Config, Directive, Line, Problem, Refused, Section, Source
from haptk.formats.haproxy_cfg.servers import check_name

__all__ = ["Config", "Problem", "Section", "Source", "parse"]

TABLES: dict[str, Mapping[str, Directive]] = {
    "global": global_table.DIRECTIVES,
    "defaults": proxies.DIRECTIVES,
    "frontend": proxies.DIRECTIVES,
    "listen": proxies.DIRECTIVES,
    "backend": proxies.DIRECTIVES,
    "peers": stats.PEERS,
    "resolvers": resolvers.RESOLVERS,
    "ring": logs.RING,
    "userlist": stats.USERLIST,
}
_ENVIRONMENT_WORDS = ("setenv", "presetenv", "resetenv", "unsetenv")


def parse(
    sources: Iterable[Source], environ: Mapping[str, str] | None = None, read: Callable[[str], bytes] | None = None
) -> Config:
    """Read `sources` in order as one configuration. Never raises for their content: see `errors` of the result.

    `environ` are the variables that `"$NAME"` sees; `setenv` and friends change a copy of them. `read` reads the files
    that lines name (patterns of ACLs); without it such a line is an error.
    """
    reader = _Reader(dict(environ or {}), read)
    for source in sources:
        reader.read(source)
    reader.finish()
    return reader.config


class _Reader:
    def __init__(self, environ: dict[str, str], read: Callable[[str], bytes] | None) -> None:
        self.read_file = read
        self.config = Config()
        self.environ = environ
        self.section: Section | None = None
        self.defaults: Section | None = None  # the last defaults section, which unnamed inheritance takes
        self.named_defaults: dict[str, Section] = {}
        self.named_proxies: dict[str, list[Section]] = {}
        self.top: Section | None = None  # the global section
        self.skipping = False  # inside a section that could not be opened

    def read(self, source: Source) -> None:
        blocks = Blocks()
        self.section = None
        lines = source.text.split("\n")
        if lines and not lines[-1]:
            lines.pop()
        elif lines:
            number = len(lines)
            self.config.warnings.append(
                Problem(source.name, number, "the last line has no line feed; is the file whole?")
            )
        for number, text in enumerate(lines, 1):
            try:
                self._line(source.name, number, text.removesuffix("\r") if text.endswith("\r") else text, blocks)
            except Refused as refused:
                self.config.errors.append(Problem(source.name, number, refused.why))
        if blocks.open_at:
            self.config.errors.append(Problem(source.name, blocks.open_at[-1], "'.if' without '.endif'"))

    def finish(self) -> None:
        for section in self.config.sections:
            self.config.warnings.extend(section.warnings)

    def _line(self, file: str, number: int, text: str, blocks: Blocks) -> None:
        section = (self.section.name or self.section.kind) if self.section else ""
        environ = {**self.environ, ".FILE": file, ".LINE": str(number), ".SECTION": section}
        found = words.split(text, environ)
        units.ENVIRONMENT.set(self.environ)
        if not found:
            return
        if found[0].startswith("."):
            problem = blocks.directive(tuple(found), number, self.environ)
            if problem:
                getattr(self.config, problem[0]).append(Problem(file, number, problem[1]))
            return
        if not blocks.active:
            return
        if found[0] in TABLES or found[0] in known.SECTIONS:
            self._open(file, number, found)
        else:
            self._directive(file, number, found)

    # -- sections ------------------------------------------------------------------------------------------------

    def _open(self, file: str, number: int, found: list[str]) -> None:
        kind = found[0]
        self.skipping = True
        self.section = None
        if kind in known.SECTIONS:
            raise Refused(f"HAProxy knows the section {kind!r}, haptk does not; accepted are {', '.join(TABLES)}")
        name, base, rest = self._heading(found)
        if kind == "global":
            self.section = self.top or Section(kind, "", file, number)
            if self.top is None:
                self.config.sections.append(self.section)
                self.top = self.section
        else:
            self.section = Section(kind, name, file, number)
            if kind in ("frontend", "backend", "listen"):
                self._check_duplicate(self.section)
            if kind not in ("peers", "userlist", "ring", "resolvers"):
                self._inherit(self.section, base)
            self.config.sections.append(self.section)
            if kind in ("frontend", "backend", "listen"):
                self.named_proxies.setdefault(name, []).append(self.section)
        self.section.read, self.section.directory = self.read_file, self._directory(file)
        if kind == "defaults":
            self._new_defaults(self.section)
        self.skipping = False
        if rest:
            self._directive(file, number, ["bind", *rest])

    def _directory(self, file: str) -> str:
        """What relative names in a file are relative to, as `default-path` says."""
        how, origin = self.top.get("default_path", ("current", "")) if self.top else ("current", "")
        here = PurePath(file).parent
        return str({"config": here, "parent": here.parent, "origin": origin}.get(how, ""))

    def _heading(self, found: list[str]) -> tuple[str, str | None, list[str]]:
        """Name, `from` base and the rest (an address, as old `listen NAME ADDRESS` lines have) of a section line."""
        kind, rest = found[0], found[1:]
        if kind == "global":
            if rest:
                raise Refused(f"'global' takes no name, found {rest[0]!r}")
            return "", None, []
        if not rest and kind != "defaults":
            raise Refused(f"'{kind}' needs a name")
        name = ""
        if rest and not (kind == "defaults" and rest[0] == "from"):
            name = check_name(rest.pop(0), kind)
        base = None
        if rest and rest[0] == "from":
            if len(rest) < 2:
                raise Refused("'from' needs the name of a defaults section")
            base = rest[1]
            rest = rest[2:]
        if rest and kind not in ("listen", "frontend"):
            raise Refused(f"'{kind} {name}' takes nothing more, found {rest[0]!r}")
        if rest:
            raise Refused(
                f"an address on the '{kind}' line was removed from HAProxy; write 'bind {' '.join(rest)}' below"
            )
        return name, base, rest

    def _inherit(self, section: Section, base: str | None) -> None:
        if base is not None:
            if base not in self.named_defaults:
                known_names = ", ".join(self.named_defaults) or "none"
                raise Refused(f"there is no defaults section {base!r} above; known are {known_names}")
            section.inherit(self.named_defaults[base])
        elif self.defaults is not None and section.kind != "defaults":
            section.inherit(self.defaults)

    def _new_defaults(self, section: Section) -> None:
        self.defaults = section
        if section.name:
            if section.name in self.named_defaults:
                raise Refused(f"there is a defaults section {section.name!r} already")
            self.named_defaults[section.name] = section

    def _check_duplicate(self, section: Section) -> None:
        """HAProxy lets a frontend and a backend share a name, and nothing else."""
        for other in self.named_proxies.get(section.name, ()):
            if {other.kind, section.kind} != {"frontend", "backend"}:
                raise Refused(f"the {other.kind} of {other.where} has the name {section.name!r} already")

    # -- directives ----------------------------------------------------------------------------------------------

    def _directive(self, file: str, number: int, found: list[str]) -> None:
        negated = found[0] == "no" and len(found) > 1
        back_to_default = found[0] == "default" and len(found) > 1
        line = Line(file, number, tuple(found[1:] if negated or back_to_default else found), negated or back_to_default)
        section = self.section
        if section is None:
            if self.skipping:
                return
            raise Refused(f"{found[0]!r} stands before any section; accepted are {', '.join(TABLES)}")
        if section.kind == "global" and line.keyword in _ENVIRONMENT_WORDS:
            self._set_environment(line)
            return
        row = self._row(section, line.keyword)
        if negated and not row.no:
            raise Refused(f"'no {line.keyword}' is not accepted; 'no' goes with option, log and some global words")
        if row.side and not section.has(row.side) and section.kind in ("frontend", "backend"):
            half = "frontend" if row.side == "f" else "backend"
            section.warn(line, f"{line.keyword}: ignored, because {section.title} has no {half} side (as in HAProxy)")
            return
        if section.letter not in row.sections:
            raise Refused(f"{line.keyword!r} is not accepted in {section.kind!r}; {_places(row)}")
        args = Args(line)
        row.parse(section, args)
        args.done()

    def _row(self, section: Section, word: str) -> Directive:
        table = TABLES[section.kind]
        row = table.get(word)
        if row is not None:
            return row
        if section.kind == "global" and word.startswith("tune."):
            return global_table.tuning(word)
        accepted = sorted(name for name, row in table.items() if section.letter in row.sections and not row.removed)
        if known.haproxy_knows(section.kind, word):
            why = "HAProxy knows it, haptk does not"
        else:
            close = difflib.get_close_matches(word, accepted, 1)
            why = "HAProxy does not know it either" + (f"; did you mean {close[0]!r}?" if close else "")
        raise Refused(f"unknown word {word!r} in {section.kind!r} ({why}); accepted are {', '.join(accepted)}")

    def _set_environment(self, line: Line) -> None:
        args = Args(line)
        if line.keyword in ("setenv", "presetenv"):
            name, value = args.take("a name"), args.take("a value")
            args.done()
            if line.keyword == "setenv" or name not in self.environ:
                self.environ[name] = value
        elif line.keyword == "unsetenv":
            for name in args:
                self.environ.pop(name, None)
        else:
            keep = set(args.rest())
            self.environ = {name: value for name, value in self.environ.items() if name in keep}


def _places(row: Directive) -> str:
    names = {"g": "global", "d": "defaults", "f": "frontend", "l": "listen", "b": "backend"}
    return "it is accepted in " + ", ".join(names[letter] for letter in row.sections if letter in names)

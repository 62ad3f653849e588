"""docs/reference/haproxy.cfg.md, made of the tables that read the file: what they accept is what the page says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from haptk.core.acl import CONVERTERS, FETCHES, METHODS
from haptk.formats.haproxy_cfg import (
    binds,
    expressions,
    known,
    logs,
    options,
    proxies,
    resolvers,
    rules,
    servers,
    stats,
)
from haptk.formats.haproxy_cfg import globals as global_table
from haptk.formats.haproxy_cfg.model import Args, Directive, Line, Refused, Section, names

_SIDES = {"d": "defaults", "f": "frontend", "l": "listen", "b": "backend"}
_NO_EFFECT = "it has no effect: "
_ALLOWED_ELSEWHERE = names("setenv presetenv resetenv unsetenv")

_INTRODUCTION = """# haproxy.cfg

<!-- Generated from haptk/formats/haproxy_cfg: scripts/test tests/formats --regenerate -->

`haptk proxy` reads the haproxy.cfg you have. Quoting, escapes, environment variables, `.if` blocks, several `-f` and
directories are HAProxy 2.6's. `haptk proxy -c -f haproxy.cfg` checks a file without starting anything and exits as
`haproxy -c` does.

A word that is not listed here is an error with file and line, and says whether HAProxy knows it. A word that is accepted
and changes nothing draws a warning with the reason. What a word means stands in HAProxy's own manual; where haptk
differs on purpose stands in [how the proxy moves bytes](../explanation/proxy-data-plane.md).
"""


def markdown() -> str:
    """The whole page."""
    parts = [_INTRODUCTION]
    parts += ["## global", "", *_global_rows(), ""]
    parts += ["## defaults, frontend, listen, backend", "", *_proxy_rows(), ""]
    parts += ["### `option`", "", *_option_rows(), ""]
    parts += ["### `bind`, `stats socket`", "", _list(binds.OPTIONS), ""]
    parts += ["Accepted with a warning: " + _list(binds.HINTS), ""]
    parts += ["### `server`, `default-server`, `server-template`", "", _list(servers.OPTIONS), ""]
    parts += ["## Rules", ""]
    parts += ["- `http-request`: " + _list(rules.REQUEST_ACTIONS)]
    parts += ["- `http-response`: " + _list(rules.RESPONSE_ACTIONS)]
    parts += ["- fetches: " + _list(FETCHES)]
    parts += ["- converters: " + _list(CONVERTERS)]
    parts += ["- methods of `-m`: " + _list(METHODS)]
    parts += ["- variables of logs and formats: " + _list(f"%{name}" for name in expressions.VARIABLES), ""]
    parts += ["## Other sections", ""]
    parts += [
        f"- `peers`: {_list(stats.PEERS)}",
        f"- `resolvers`: {_list(resolvers.RESOLVERS)}",
        f"- `userlist`: {_list(stats.USERLIST)}",
    ]
    parts += [f"- `ring`: {_list(logs.RING)}", ""]
    parts += ["## Refused, although HAProxy 2.6 knows it", "", *_refused(), ""]
    return "\n".join(parts)


def _list(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in sorted(words, key=str.lower))


def _note(keyword: str, row: Directive) -> str:
    """What is to be said of a row: the reader itself says it of a word that changes nothing."""
    scratch = Section("listen", "scratch", "", 0)
    try:
        row.parse(scratch, Args(Line("", 0, (keyword,))))
    except Refused as refused:
        return refused.why if row.removed else ""
    found = [problem.why.partition(_NO_EFFECT)[2] for problem in scratch.warnings if _NO_EFFECT in problem.why]
    return f"no effect: {found[0]}" if found else ""


def _global_rows() -> list[str]:
    inert: dict[str, list[str]] = {}
    for keyword, row in global_table.DIRECTIVES.items():
        inert.setdefault(_note(keyword, row), []).append(keyword)
    lines = [_list(inert.pop("", [])), ""]
    lines += [f"Accepted with a warning, {note}: {_list(words)}\n" for note, words in sorted(inert.items())]
    return [
        *lines,
        "Any other word that begins with `tune.` is accepted with a warning: it tunes HAProxy's own machinery.",
    ]


def _proxy_rows() -> list[str]:
    lines = ["| word | in | |", "|---|---|---|"]
    for keyword, row in sorted(proxies.DIRECTIVES.items()):
        if row.removed:
            continue
        where = ", ".join(name for letter, name in _SIDES.items() if letter in row.sections)
        lines.append(f"| {'[no] ' * row.no}`{keyword}` | {where} | {_cell(_note(keyword, row))} |")
    return lines


def _option_rows() -> list[str]:
    halves = {"f": "frontends", "b": "backends", "": "both"}
    lines = ["| option | of | |", "|---|---|---|"]
    for name, row in sorted(options.OPTIONS.items()):
        lines.append(f"| `{name}` | {halves[row.side]} | {_cell('no effect: ' + row.inert if row.inert else '')} |")
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _refused() -> list[str]:
    """Every word of the tables of refusals, without what has been accepted since."""
    tables: list[tuple[str, Iterable[str], Mapping[str, object]]] = [
        ("sections", known.SECTIONS, {}),
        ("global", known.GLOBAL_WORDS - _ALLOWED_ELSEWHERE, global_table.DIRECTIVES),
        ("defaults, frontend, listen, backend", known.PROXY_WORDS, proxies.DIRECTIVES),
        ("option", options.UNSUPPORTED, options.OPTIONS),
        ("bind", binds.UNSUPPORTED, binds.OPTIONS),
        ("server", servers.UNSUPPORTED, servers.OPTIONS),
        ("http-request, http-response", rules.UNSUPPORTED_REQUEST, rules.REQUEST_ACTIONS),
        ("peers", known.PEERS_WORDS, stats.PEERS),
        ("ring", known.RING_WORDS, logs.RING),
    ]
    return [f"- {title}: {_list(word for word in words if word not in accepted)}" for title, words, accepted in tables]

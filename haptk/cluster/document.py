"""The schema as documents: JSON Schema for editors, the reference page and the man page. Pure; one source, three forms.

Whatever a person may look up about a key (meaning, what is accepted, default) is in schema.py; what tables mean together
is in the rules. Nothing is written twice, so nothing can disagree.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from haptk.cluster import faults, rules, schema
from haptk.cluster.load import CODES, accepted, described
from haptk.cluster.units import Seconds

DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?|\.[0-9]+)\s*(us|ms|s|sec|m|min|h|hr)?$"
INTRODUCTION = (
    "`/etc/haptk/cluster.toml` declares a load-balancer tier once. `haptk generate` writes every file and record from it, "
    "`haptk diff` says what differs, `haptk apply` makes it so. Another file is named by `--config` or `HAPTK_CONFIG`.",
    "The file is TOML. Tables in double brackets may be repeated. Durations are numbers of seconds or words such as "
    '"500ms", "2s", "30m" and "8h". Every error is reported at once, each with its line and what is accepted.',
)


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of cluster.toml, for editors."""
    properties: dict[str, Any] = {}
    for name in schema.ORDER:
        if name in schema.ARRAYS:
            properties[name] = {"type": "array", "items": _object(schema.ARRAYS[name])}
        else:
            properties[name] = _object(schema.TABLES[name])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "cluster.toml",
        "type": "object",
        "required": list(schema.REQUIRED),
        "additionalProperties": False,
        "properties": properties,
    }


def _object(kind: type[schema.Table]) -> dict[str, Any]:
    """One table; made key by key, because msgspec cannot write a default of a type of ours."""
    fields = msgspec.structs.fields(kind)
    return {
        "type": "object",
        "description": " ".join((kind.__doc__ or "").split()),
        "required": [one.name for one in fields if one.required],
        "additionalProperties": False,
        "properties": {one.name: _property(one) for one in fields},
    }


def _property(one: msgspec.structs.FieldInfo) -> dict[str, Any]:
    found = msgspec.json.schema(one.type, schema_hook=_hook)
    # TOML has no null: an absent key is the only way to say nothing.
    choices = [choice for choice in found.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        found = choices[0]
    found = {"description": f"{described(one.type)} Accepted: {accepted(one.type)}."} | {
        key: value for key, value in found.items() if key not in ("description", "title")
    }
    default = _default(one)
    return found if default in ("", "required") else found | {"default": json.loads(default)}


def _hook(kind: type) -> dict[str, Any]:
    if kind is Seconds:
        return {"type": ["string", "number"], "pattern": DURATION_PATTERN, "minimum": 0}
    raise NotImplementedError(kind)


def rows(kind: type[schema.Table]) -> list[tuple[str, str, str, str]]:
    """Name, meaning, what is accepted and default of every key of a table."""
    return [(one.name, described(one.type), accepted(one.type), _default(one)) for one in msgspec.structs.fields(kind)]


def _default(one: msgspec.structs.FieldInfo) -> str:
    if one.required:
        return "required"
    value = one.default
    if value is msgspec.NODEFAULT:
        value = one.default_factory() if callable(one.default_factory) else None
    if value is None or value in ((), {}):
        return ""
    if isinstance(value, Seconds):
        return f'"{value.text}"'
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def _titles() -> list[tuple[str, str, type[schema.Table]]]:
    """Header and meaning of every table, in the order of the file."""
    found = []
    for name in schema.ORDER:
        kind = schema.ARRAYS.get(name) or schema.TABLES[name]
        words = " ".join((kind.__doc__ or "").split())
        header, _, meaning = words.partition(": ")
        found.append((header.strip("`"), meaning, kind))
    return found


def markdown() -> str:
    """docs/reference/cluster.toml.md."""
    lines = ["# cluster.toml", "", "<!-- Generated from haptk/cluster: scripts/test tests/cluster --regenerate -->", ""]
    for paragraph in INTRODUCTION:
        lines += [paragraph, ""]
    for header, meaning, kind in _titles():
        lines += [f"## `{header}`", "", meaning[:1].upper() + meaning[1:], "", "| key | meaning | accepted | default |"]
        lines.append("|---|---|---|---|")
        for name, means, takes, default in rows(kind):
            shown = f"`{default}`" if default not in ("", "required") else default
            lines.append(f"| `{name}` | {_cell(means)} | {_cell(takes)} | {shown} |")
        lines.append("")
    lines += [
        "## Codes",
        "",
        "Errors stop every command; warnings are shown.",
        "",
        "| code | rule | |",
        "|---|---|---|",
    ]
    lines += [f"| {code} | {_cell(text)} | error |" for code, text in CODES.items()]
    for rule in rules.all_rules().values():
        lines.append(f"| {rule.code} | {_cell(rule.summary)} | {rule.severity} |")
    lines += ["", "## Faults of other files", "", "`haptk init --from` names them; generated files have none.", ""]
    lines += ["| code | fault |", "|---|---|", *(f"| {code} | {_cell(text)} |" for code, text in faults.FAULTS.items())]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def man(version: str) -> str:
    """man/cluster.toml.5."""
    lines = [f'.TH "CLUSTER.TOML" "5" "haptk {version}" "haptk {version}" "haptk"', ".SH NAME"]
    lines += ["cluster.toml \\- declares a load-balancer tier for haptk(1)", ".SH DESCRIPTION"]
    for paragraph in INTRODUCTION:
        lines += [_roff(paragraph), ".PP"]
    for header, meaning, kind in _titles():
        lines += [f'.SH "{header}"', _roff(meaning[:1].upper() + meaning[1:])]
        for name, means, takes, default in rows(kind):
            words = f" Required: {takes}." if default == "required" else f" Accepted: {takes}."
            words += f" Default: {default}." if default not in ("", "required") else ""
            lines += [".TP", f"\\fB{name}\\fR", _roff(means + words)]
    lines.append(".SH CODES")
    for code, text in CODES.items():
        lines += [".TP", f"\\fB{code}\\fR", _roff(text)]
    for rule in rules.all_rules().values():
        lines += [".TP", f"\\fB{rule.code}\\fR", _roff(f"{rule.summary} ({rule.severity})")]
    lines += [".SH FILES", "/etc/haptk/cluster.toml", '.SH "SEE ALSO"']
    lines.append(
        "haptk(1), haptk-init(1), haptk-generate(1), haptk-diff(1), haptk-apply(1), haptk-dns(1), haptk-elb(1), haptk-capacity(1)"
    )
    return "\n".join(lines) + "\n"


def _roff(text: str) -> str:
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", text.replace("\\", "\\e")).replace("-", "\\-")
    return "\\&" + text if text[:1] in ".'" else text

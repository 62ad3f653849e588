"""cluster.toml: what is accepted, and each of its errors with the one line that a person has to see."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haptk import __version__
from haptk.cluster import document, rules, schema
from haptk.cluster.lines import index
from haptk.cluster.load import CODES, examine, load
from haptk.cluster.units import Seconds
from haptk.errors import ConfigError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
GOOD = sorted((HERE / "good").glob("*.toml"))
BAD = sorted((HERE / "bad").glob("*.toml"))


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_good_file_is_accepted_without_a_word(path: Path) -> None:
    assert load(path.read_text(), path.name).warnings == ()


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_file_gets_its_one_message(path: Path) -> None:
    """The first line of the file is the message: line, sentence, code. Nothing else is said about it."""
    text = path.read_text()
    expected = text.splitlines()[0].removeprefix("# ")
    _, problems = examine(text, "cluster.toml")
    assert [str(problem) for problem in problems] == [f"cluster.toml:{expected}"]
    assert problems[0].code == path.stem[:4]


def test_every_rule_has_a_bad_file() -> None:
    codes = {path.stem[:4] for path in BAD}
    assert codes == set(rules.all_rules()) | set(CODES)


def test_all_errors_of_all_tables_come_at_once() -> None:
    text = (HERE / "good" / "standby-keepalived.toml").read_text()
    text = text.replace('"10.0.1.10"', '"10.0.1"').replace('"4s"', '"soon"').replace('design = "insert"', "")
    with pytest.raises(ConfigError) as caught:
        load(text, "tier.toml")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("tier.toml:14: [[balancers]] lb1: private_ip")
    assert lines[1].startswith("tier.toml:37: [session]: design is missing")
    assert "deadtime" in lines[2]
    problems = caught.value.fields["problems"]
    assert isinstance(problems, list) and len(problems) == 3


def test_warnings_do_not_stop_a_load() -> None:
    text = (HERE / "bad" / "C405-standby-in-one-zone.toml").read_text()
    assert [problem.code for problem in load(text).warnings] == ["C405"]


def test_structs_are_frozen() -> None:
    cluster = load(GOOD[0].read_text()).cluster
    with pytest.raises(AttributeError):
        cluster.cluster.name = "other"  # type: ignore[misc]


def test_a_group_is_everybody_tied_together_by_addresses() -> None:
    cluster = load((HERE / "good" / "standby-heartbeat.toml").read_text()).cluster
    assert [balancer.name for balancer in cluster.group("lb2")] == ["lb1", "lb2"]
    alone = load((HERE / "good" / "round-robin.toml").read_text()).cluster
    assert [balancer.name for balancer in alone.group("lb2")] == ["lb2"]


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("a = 1\n[t]\nb = 2\n", ("t", "b"), 3),
        ("[[t]]\nb = 1\n\n[[t]]\nb = 2\n", ("t", 1, "b"), 5),
        ("[[t]]\nb = 1\n[[t]]\nc = [\n  1,\n  2,\n]\nb = 2\n", ("t", 1, "b"), 8),
        ('[t]\nx = """\n[u]\nb = 1\n"""\nb = 2\n', ("t", "b"), 6),
        ("[t]\nx = '[['\nb = 2\n", ("t", "b"), 3),
        ("[t]\nx = 1 # [\nb = 2\n", ("t", "b"), 3),
        ('[t]\n"b" = 2\n', ("t", "b"), 2),
        ("[t]\na.b = 2\n", ("t", "a", "b"), 2),
        ("[[t]]\n[t.u]\nb = 1\n[[t]]\n[t.u]\nb = 2\n", ("t", 1, "u", "b"), 6),
        ("[t]\nb = { c = 1 }\n", ("t", "b", "c"), 2),
    ],
)
def test_keys_are_found_where_they_stand(text: str, path: tuple[str | int, ...], line: int) -> None:
    assert tomllib.loads(text)
    assert index(text).at(*path) == line


@given(st.text(max_size=300))
def test_no_text_breaks_the_loader(text: str) -> None:
    cluster, problems = examine(text)
    assert (cluster is None) == any(problem.severity == "error" for problem in problems)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(schema.ORDER), st.sampled_from(["zones", "name", "pattern", "ttl", "subnets"]), _JSON)
def test_no_value_breaks_the_loader(table: str, key: str, value: object) -> None:
    """Whatever stands in a key, the answer is a sentence with a line; JSON without nulls is TOML's inline syntax."""
    if value is None or "null" in json.dumps(value):
        return
    inline = json.dumps(value).replace('": ', '" = ') if not isinstance(value, str) else json.dumps(value)
    try:
        tomllib.loads(f"x = {inline}")
    except tomllib.TOMLDecodeError:
        return
    header = f"[[{table}]]" if table in schema.ARRAYS else f"[{table}]"
    cluster, problems = examine(f"{header}\n{key} = {inline}\n")
    assert cluster is None and problems


@pytest.mark.parametrize(
    ("given_text", "seconds", "text", "ha_cf"),
    [(2, 2, "2s", "2"), ("500ms", 0.5, "500ms", "500ms"), ("90s", 90, "90s", "90"), ("30m", 1800, "30m", "1800"),
     ("8h", 28800, "8h", "28800"), (0, 0, "0ms", "0"), (0.25, 0.25, "250ms", "250ms")],
)  # fmt: skip
def test_durations(given_text: object, seconds: float, text: str, ha_cf: str) -> None:
    found = Seconds.parse(given_text)
    assert (found, found.text, found.ha_cf) == (seconds, text, ha_cf)


def test_the_json_schema_agrees_with_the_loader() -> None:
    """Editors have to accept every good file, and to refuse what the loader refuses for a value of its own."""
    import jsonschema

    found = document.json_schema()
    jsonschema.Draft202012Validator.check_schema(found)
    validator = jsonschema.Draft202012Validator(found)
    for path in GOOD:
        assert not list(validator.iter_errors(tomllib.loads(path.read_text()))), path
    for path in BAD:
        if path.stem[:4] in ("C001", "C002", "C003", "C004", "C005", "C006", "C007") and "C001" not in path.stem:
            assert list(validator.iter_errors(tomllib.loads(path.read_text()))), path


@pytest.mark.parametrize(
    ("path", "make"),
    [
        ("docs/reference/cluster.toml.md", document.markdown),
        ("docs/reference/cluster.schema.json", lambda: json.dumps(document.json_schema(), indent=2) + "\n"),
        ("man/cluster.toml.5", lambda: document.man(__version__)),
    ],
)
def test_generated_documents_are_fresh(path: str, make: object, request: pytest.FixtureRequest) -> None:
    text = make()  # type: ignore[operator]
    if request.config.getoption("--regenerate"):
        (ROOT / path).write_text(text)
    assert (ROOT / path).read_text() == text, "run scripts/test tests/cluster --regenerate"


def test_every_key_is_documented() -> None:
    for kind in (*schema.ARRAYS.values(), *schema.TABLES.values()):
        for name, meaning, takes, _ in document.rows(kind):
            assert meaning and takes != "another value", f"{kind.__name__}.{name}"

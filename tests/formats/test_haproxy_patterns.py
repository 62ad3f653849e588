"""`-f FILE` of an ACL: where the file is looked for, what of it counts, and what is said when it is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from haptk.errors import ConfigError
from haptk.formats.haproxy_cfg import Source, parse
from haptk.proxy.compile import load, load_text

FILE = "{}frontend f\n mode http\n bind 127.0.0.1:1\n timeout client 1s\n http-request deny if {{ {} }}\n"


def patterns(directory: Path, words: str, top: str = "") -> tuple[str, ...]:
    file = directory / "haproxy.cfg"
    file.write_text(FILE.format(top, words))
    condition = load([file]).frontends[0].rules[0].condition
    assert condition is not None
    return condition.any_of[0][0].tests[0].values


def test_lines_come_before_words(tmp_path: Path) -> None:
    (tmp_path / "a.lst").write_text("# no\n\n \t#yes\r\n-f\ngt \n")
    assert patterns(tmp_path, f"path -i -f {tmp_path}/a.lst -m str x") == ("#yes", "-f", "gt ", "x")
    assert patterns(tmp_path, "path -f a.lst", "global\n default-path config\n") == ("#yes", "-f", "gt ")


@pytest.mark.parametrize(
    ("content", "words", "why"),
    [
        ("x", "path -f", "-f needs the name of a file"),
        ("x", "path -f @/none", "No such file"),
        ("10.0.0.0/8\nx\n", "src -f @/a.lst", "'x' is no address or network"),
        ("(\n", "path_reg -f @/a.lst", "is no regular expression"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: str, words: str, why: str) -> None:
    (tmp_path / "a.lst").write_text(content)
    with pytest.raises(ConfigError, match=why):
        patterns(tmp_path, words.replace("@", str(tmp_path)))


def test_a_reader_without_files_says_so() -> None:
    found = parse([Source("x", FILE.format("", "path -f a"))])
    assert "files cannot be read here" in found.errors[0].why


def test_nothing_to_compare_with_is_no_error(tmp_path: Path) -> None:
    """As in HAProxy: such an ACL never holds, which draws a warning unless `--` or a file says that it is meant."""
    (tmp_path / "a.lst").write_text("# x\n")
    assert patterns(tmp_path, f"path -f {tmp_path}/a.lst") == ()
    for words, warned in (
        ("path", True),
        ("path --", False),
        (f"path -f {tmp_path}/a.lst", False),
        ("path -m found x", False),
    ):
        text = f"defaults\n mode http\nfrontend f\n bind :1\n acl a {words}\n timeout client 1s\n"
        found = load_text(text).warnings
        assert any("never holds" in one for one in found) == warned, (words, found)

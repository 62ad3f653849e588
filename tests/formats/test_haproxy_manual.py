"""The reference of haproxy.cfg's words is made of the tables, and its list of refusals is what HAProxy really knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from haptk.formats.haproxy_cfg import Source, globals, known, manual, options, parse, proxies

PAGE = Path(__file__).parents[2] / "docs/reference/haproxy.cfg.md"


def test_page_is_fresh(request: pytest.FixtureRequest) -> None:
    text = manual.markdown()
    if request.config.getoption("--regenerate"):
        PAGE.write_text(text)
    assert PAGE.read_text() == text, "run scripts/test tests/formats --regenerate"


def test_every_word_of_the_tables_is_on_the_page() -> None:
    page = manual.markdown()
    for word in (*globals.DIRECTIVES, *proxies.DIRECTIVES, *options.OPTIONS):
        assert f"`{word}`" in page or getattr(proxies.DIRECTIVES.get(word), "removed", False), word


@pytest.mark.parametrize("word", sorted(known.PROXY_WORDS - set(proxies.DIRECTIVES)))
def test_what_the_page_calls_refused_is_refused(word: str) -> None:
    found = parse([Source("x.cfg", f"listen l\n mode http\n {word} some words\n")])
    assert len(found.errors) == 1
    assert "HAProxy knows" in found.errors[0].why or "haptk" in found.errors[0].why

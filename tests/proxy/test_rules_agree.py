"""Fetches, converters, matches, formats and edits of the compiled path against core.acl and the reference, on random heads."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("haptk._fast.probe", reason="needs the compiled path")

from haptk._fast import regex
from tests.proxy.rule_worlds import World

WORLD = World()


@settings(max_examples=400, deadline=None)
@given(st.randoms(use_true_random=False))
def test_a_question_has_one_answer(rng: random.Random) -> None:
    assert not WORLD.disagreement(rng)


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False))
def test_edits_make_one_message(rng: random.Random) -> None:
    assert not WORLD.edits_disagreement(rng)


@pytest.mark.parametrize("block", range(4))
def test_thousands_of_questions(block: int) -> None:
    for seed in range(block * 4000, block * 4000 + 4000):
        assert not WORLD.disagreement(random.Random(seed)), f"seed {seed}"


def test_thousands_of_edits() -> None:
    for seed in range(3000):
        assert not WORLD.edits_disagreement(random.Random(seed)), f"seed {seed}"


@pytest.mark.real("haproxy")  # whose package brings the library
def test_expressions_run_in_the_library() -> None:
    assert regex.available()
    assert regex.problem(b"(a", False) == "missing closing parenthesis at position 2"
    assert regex.problem(b"(a)", False) == ""

"""A floor with a ladder."""

import json

import pytest

from entropy_cli import Floor


@pytest.fixture
def floor(ladder_result):
    return Floor.load(ladder_result)


@pytest.fixture
def a_and_ceilings(ladder_result):
    """A of the mean over tokens, and its ceilings, as the result has them."""
    result = json.loads(ladder_result.read_text())
    of = result["average"]["token_weighted"]
    rungs = {
        rung["id"]: rung["average"]["token_weighted"]["upper95"] for rung in result["ladder"]["rungs"]
    }
    return of["assignment_entropy"]["value"], rungs | {"unigram": of["unigram_bracket"]["upper95"]}

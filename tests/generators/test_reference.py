"""Golden values hold for the formulae in plain float64, and for none of the usual mistakes."""

import pytest

from tests.generators.golden import golden_generator
from tests.generators.reference import GPT_MISTAKES, VAR_MISTAKES, gpt_logits, var_logits

TOLERANCE = 5e-5  # of a token's loss in nats, in the tests of the generators


@pytest.fixture(scope="module")
def losses_of(shared):
    """The largest difference of a token's loss from the published code's, for a mistake."""
    opened = {}

    def difference(name, wrong):
        if name not in opened:
            opened[name] = golden_generator(shared, name)
        golden = opened[name]
        weights = {key: golden.checkpoint.numbers(key) for key in golden.checkpoint.shapes}
        spec, inputs = vars(golden.generator.spec), golden.values.get("model_input")
        logits = gpt_logits if spec["family"] == "llamagen-gpt" else var_logits
        logits_BLV = logits(weights, spec, golden.label_B, golden.idx_BL, inputs, wrong)
        nll = -logits_BLV.log_softmax(-1).gather(-1, golden.idx_BL[..., None])[..., 0]
        return (nll - golden.values["nll"]).abs().max().item()

    return difference


@pytest.mark.parametrize("name", ["var_d4", "var_saln", "llamagen_gpt"])
def test_formulae(losses_of, name):
    assert losses_of(name, "") < 1e-6  # the published code makes some tables in float32


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *(("var_d4", wrong) for wrong in VAR_MISTAKES),
        *(("llamagen_gpt", wrong) for wrong in GPT_MISTAKES),
    ],
)
def test_each_mistake_is_seen(losses_of, name, wrong):
    assert losses_of(name, wrong) > TOLERANCE

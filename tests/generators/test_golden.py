"""What the published code says of its own files, token by token."""

import pytest

from entropy_cli.generators.base import GeneratorSpec
from tests.generators.golden import FILES, golden_generator, logits_of, losses


@pytest.fixture(scope="module", params=FILES)
def golden(request, shared):
    return golden_generator(shared, request.param)


@pytest.mark.parametrize("label", ["conditional", "unconditional"])
def test_losses_of_given_tokens(golden, label):
    suffix = "" if label == "conditional" else ".unconditional"
    label_B = golden.null_B if suffix else golden.label_B
    logits_BLV = logits_of(golden.generator, golden.idx_BL, label_B, golden.inputs_BMC)
    nll, rank, entropy = losses(logits_BLV, golden.idx_BL)
    assert (nll - golden.values[f"nll{suffix}"]).abs().max() < 5e-5
    assert (rank == golden.values[f"rank{suffix}"]).all()
    assert (entropy - golden.values[f"predictive_entropy{suffix}"]).abs().max() < 5e-5
    average = golden.expected[label]["average"]["token_weighted"]
    assert nll.mean().item() == pytest.approx(average["cross_entropy"], abs=1e-6)
    assert entropy.mean().item() == pytest.approx(average["predictive_entropy"], abs=1e-6)
    if not suffix:
        assert (logits_BLV[0] - golden.values["logits.image0"]).abs().max() < 5e-5


def test_sizes(golden):
    spec, expected = golden.generator.spec, golden.expected
    sizes = expected["sizes"]
    assert isinstance(spec, GeneratorSpec)
    assert spec.family == expected["model_family"]
    assert list(spec.patch_nums) == expected["patch_nums"] and spec.vocab_size == expected["vocab_size"]
    assert spec.parameters == expected["parameters"]
    assert (spec.classes, spec.null_class) == (sizes["num_classes"], sizes["num_classes"])
    if spec.family == "var":
        assert (spec.depth, spec.width, spec.heads) == tuple(
            sizes[key] for key in ("depth", "embed_dim", "num_heads")
        )
        assert spec.latent_dim == golden.inputs_BMC.shape[-1] and spec.image_size is None
    else:
        assert (spec.depth, spec.width, spec.heads) == (sizes["n_layer"], sizes["dim"], sizes["n_head"])
        assert spec.latent_dim is None and spec.image_size == expected["image_size"]

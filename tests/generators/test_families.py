"""What holds for every generator family, on a tiny checkpoint of its layout."""

import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from entropy_cli.core.errors import CheckpointError
from entropy_cli.generators.registry import FAMILIES, load_generator, match_generator
from entropy_cli.tokenizers.checkpoints.checkpoint import Checkpoint
from tests.generator_checkpoints import EXAMPLES
from tests.generators.golden import logits_of, losses
from tests.mutations import mutations

CPU = torch.device("cpu")
B = 3
by_family = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture
def load(tmp_path):
    def build(name, content, settings=None, **options):
        path = tmp_path / "x.pth"
        torch.save(content, path)
        given = replace(settings or EXAMPLES[name].settings, **options)
        return load_generator(path, settings=given)

    return build


def state_of(name, seed=0):
    return EXAMPLES[name].weights(seed) | EXAMPLES[name].buffers


def in_memory(name, state=None, **options):
    checkpoint = Checkpoint.of_tensors(Path("x"), state_of(name) if state is None else state)
    return match_generator(checkpoint, settings=replace(EXAMPLES[name].settings, **options))


def given(spec, seed=3):
    """Tokens, labels and inputs, of which the last image has no class."""
    seeded = torch.Generator().manual_seed(seed)
    idx_BL = torch.randint(spec.vocab_size, (B, spec.tokens), generator=seeded)
    label_B = torch.randint(spec.classes, (B,), generator=seeded)
    label_B[-1] = spec.null_class
    if spec.latent_dim is None:
        return idx_BL, label_B, None
    after_first = spec.tokens - spec.tokens_S[0]
    return idx_BL, label_B, torch.randn(B, after_first, spec.latent_dim, generator=seeded)


def test_every_family_has_its_example():
    assert EXAMPLES.keys() == FAMILIES.keys()


@by_family
def test_description(name):
    found = in_memory(name)
    spec = vars(found.describe())
    assert found.name == spec["family"] == name and len(found.evidence) == 3
    assert {key: spec[key] for key in EXAMPLES[name].spec} == EXAMPLES[name].spec
    assert spec["parameters"] == sum(math.prod(shape) for shape in EXAMPLES[name].shapes.values())
    assert vars(found.build().spec) == spec


@by_family
def test_logits_are_those_of_the_formulae(name):
    generator = in_memory(name).build()
    idx_BL, label_B, inputs_BMC = given(generator.spec)
    logits_BLV = logits_of(generator, idx_BL, label_B, inputs_BMC)
    expected = EXAMPLES[name].reference(
        EXAMPLES[name].weights(), EXAMPLES[name].spec, label_B, idx_BL, inputs_BMC
    )
    assert expected.std() > 0.3
    assert (logits_BLV - expected).abs().max() < 2e-5


@by_family
def test_later_tokens_do_not_matter(name):
    generator = in_memory(name).build()
    spec = generator.spec
    idx_BL, label_B, inputs_BMC = given(spec)
    before = logits_of(generator, idx_BL, label_B, inputs_BMC)
    starts = [sum(spec.tokens_S[:s]) for s in range(len(spec.tokens_S))]
    # Inputs that come from tokens of a scale begin with the next; those of a token, with the next.
    for place in starts[1:] if spec.latent_dim else range(1, spec.tokens):
        if spec.latent_dim:
            changed = inputs_BMC.clone()
            changed[:, place - starts[1] :] += 1
            after = logits_of(generator, idx_BL, label_B, changed)
        else:
            other = idx_BL.clone()
            other[:, place - 1 :] = (other[:, place - 1 :] + 1) % spec.vocab_size
            after = logits_of(generator, other, label_B, None)
        assert torch.equal(before[:, :place], after[:, :place])
        assert (before[:, place:] != after[:, place:]).any(-1).all()


@by_family
def test_images_and_pieces_do_not_matter(name):
    generator = in_memory(name).build()
    idx_BL, label_B, inputs_BMC = given(generator.spec)
    together = logits_of(generator, idx_BL, label_B, inputs_BMC)
    for b in range(B):
        part = slice(b, b + 1)
        inputs = None if inputs_BMC is None else inputs_BMC[part]
        alone = logits_of(generator, idx_BL[part], label_B[part], inputs)
        assert torch.allclose(alone[0], together[b], atol=1e-5)
    hidden_NC = generator.hidden(idx_BL, label_B, inputs_BMC).flatten(0, 1)
    pieces = torch.cat([generator.logits(piece) for piece in hidden_NC.split(5)])
    assert torch.allclose(pieces, together.flatten(0, 1), atol=1e-5)


@by_family
def test_a_last_layer_of_zeros_knows_nothing(name):
    zero = {key: torch.zeros(EXAMPLES[name].shapes[key]) for key in EXAMPLES[name].last}
    generator = in_memory(name, state_of(name) | zero).build()
    idx_BL, *rest = given(generator.spec)
    nll, rank, entropy = losses(logits_of(generator, idx_BL, *rest), idx_BL)
    ln_V = torch.tensor(generator.spec.vocab_size, dtype=torch.float64).log()
    assert torch.allclose(nll, ln_V) and torch.allclose(entropy, ln_V)
    assert torch.equal(rank, idx_BL)


@by_family
@pytest.mark.parametrize(("precision", "most"), [("fp16", 2e-3), ("bf16", 2e-2)])
def test_products_of_16_bits(name, precision, most):
    generator = in_memory(name).build()
    half = generator.to(CPU, precision)
    idx_BL, *rest = given(generator.spec)
    exact, near = (losses(logits_of(g, idx_BL, *rest), idx_BL)[0] for g in (generator, half))
    assert 1e-6 < (near - exact).abs().max() < 30 * most
    assert (near - exact).mean().abs() < most
    assert generator.precision == "fp32" and half.spec == generator.spec
    kept = dict(generator.network.named_parameters())
    weights = dict(half.network.named_parameters())
    assert {w.dtype for w in kept.values()} == {torch.float32}
    assert {w.dtype for w in weights.values()} == {
        torch.float32,
        next(w.dtype for w in weights.values() if w.dtype != torch.float32),
    }
    # What keeps its type is shared, not copied.
    shared = [key for key, w in weights.items() if w.dtype == torch.float32]
    assert all(weights[key].data_ptr() == kept[key].data_ptr() for key in shared)


@by_family
def test_every_way_of_storing_it_gives_the_same(load, name):
    example, state = EXAMPLES[name], state_of(name)
    expected = in_memory(name).build()
    arguments = given(expected.spec)
    logits = logits_of(expected, *arguments)
    contents = [{prefix + key: w for key, w in state.items()} for prefix in ("module.", "_orig_mod.")]
    contents += [{"module._orig_mod." + key: w for key, w in state.items()}]
    for wrapper in example.wrappers:
        content = {"epoch": 3, "optimizer": {"state": {0: {"step": torch.ones(1)}}}}
        inner = content
        *outer, last = wrapper.split(".")
        for key in outer:
            inner[key] = {"config": {"a": 1}, "vae_local": {"encoder.conv_in.weight": torch.ones(2, 2)}}
            inner = inner[key]
        inner[last] = state
        contents.append(content)
    for content in contents:
        assert torch.equal(logits_of(load(name, content).generator, *arguments), logits)
    half = {key: w.half() for key, w in state.items()}
    rounded = {key: w.float() for key, w in half.items()}
    found = logits_of(load(name, half).generator, *arguments)
    assert torch.equal(found, logits_of(in_memory(name, rounded).build(), *arguments))
    assert not torch.equal(found, logits)


@by_family
def test_a_folder_and_the_averaged_copy(load, tmp_path, name):
    (tmp_path / "hub").mkdir()
    save_file(state_of(name), tmp_path / "hub" / "model.safetensors")
    loaded = load_generator(tmp_path / "hub", settings=EXAMPLES[name].settings)
    arguments = given(loaded.generator.spec)
    raw = logits_of(loaded.generator, *arguments)
    content = {"model": state_of(name), "ema": state_of(name, seed=1)}
    assert torch.equal(logits_of(load(name, content).generator, *arguments), raw)
    averaged = load(name, content, weights="ema")
    assert averaged.checkpoint.weights == "ema"
    assert not torch.allclose(logits_of(averaged.generator, *arguments), raw)
    with pytest.raises(CheckpointError, match="holds no EMA copy"):
        load(name, {"model": state_of(name)}, weights="ema")


@by_family
def test_one_tensor_changed(name):
    """It gives the same logits or an error, never others."""
    expected = in_memory(name).build()
    arguments = given(expected.spec)
    logits = logits_of(expected, *arguments)
    # A square matrix that is transposed is a legal tensor of other numbers.
    sample = random.Random(5).sample(list(mutations(state_of(name), 5)), 60)
    refused = 0
    for way, key, changed in sample:
        try:
            generator = in_memory(name, changed).build()
        except CheckpointError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            assert key in EXAMPLES[name].buffers, (way, key)
            assert torch.equal(logits_of(generator, *arguments), logits), (way, key)
    assert refused > 30


@by_family
def test_missing_and_unknown_names_are_listed(name):
    state = state_of(name)
    for key in EXAMPLES[name].shapes:
        with pytest.raises(CheckpointError, match=key.replace(".", r"\.")):
            in_memory(name, {k: w for k, w in state.items() if k != key}).build()
    with pytest.raises(CheckpointError, match=r"has extra\.weight, which the layout does not have"):
        in_memory(name, state | {"extra.weight": torch.ones(2)}).describe()


@by_family
def test_weights_that_are_not_finite_are_named(name):
    for key in list(EXAMPLES[name].shapes)[::4]:
        broken = EXAMPLES[name].weights()[key]
        broken.view(-1)[-1] = math.nan
        with pytest.raises(CheckpointError, match=f"{key} holds NaN or infinity"):
            in_memory(name, state_of(name) | {key: broken}).build()


@by_family
def test_heads_that_do_not_divide_the_width(name):
    with pytest.raises(CheckpointError, match="heads"):
        in_memory(name, heads=5).describe()


@by_family
def test_it_can_be_trained(name):
    generator = in_memory(name).build()
    generator.network.requires_grad_(requires_grad=True)
    idx_BL, *rest = given(generator.spec)
    logits_NV = generator.logits(generator.hidden(idx_BL, *rest).flatten(0, 1))
    torch.nn.functional.cross_entropy(logits_NV, idx_BL.flatten()).backward()
    zero = [key for key, w in generator.network.named_parameters() if not w.grad.any()]
    assert zero == []


def test_a_checkpoint_of_two_families_is_an_error():
    state = {}
    for name in FAMILIES:
        state |= state_of(name)
    with pytest.raises(CheckpointError, match="fits var and llamagen-gpt, expected one"):
        match_generator(Checkpoint.of_tensors(Path("x"), state))

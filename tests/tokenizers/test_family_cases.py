"""What is particular to a family: its relatives, its copies, and what the user may choose."""

import pytest
import torch

from entropy_cli.core.errors import CheckpointError
from entropy_cli.entropy.assign import assign
from entropy_cli.entropy.codebook import Grid
from entropy_cli.tokenizers.registry import find_family, load_tokenizer
from entropy_cli.tokenizers.settings import TokenizerSettings
from tests import family_checkpoints as tiny
from tests.family_checkpoints import EXAMPLES, LDM, random_weights

SMALL = TokenizerSettings(image_size=16)


@pytest.fixture
def found(tmp_path):
    """Save weights, random ones if shapes are given, and tell their family."""

    def found(state, family="auto", settings=SMALL, prefix=""):
        if all(isinstance(value, tuple) for value in state.values()):
            state = random_weights(state)
        torch.save({prefix + name: value for name, value in state.items()}, tmp_path / "x.pt")
        return find_family(tmp_path / "x.pt", family, settings)

    return found


@pytest.fixture
def load(tmp_path, found):
    """The tokenizer of weights."""

    def load(state, family="auto", settings=SMALL, prefix=""):
        found(state, family, settings, prefix)
        return load_tokenizer(tmp_path / "x.pt", family, settings).tokenizer

    return load


@pytest.fixture(scope="module")
def pixels():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (2, 3, 16, 16), generator=generator, dtype=torch.uint8)


@torch.no_grad()
def latents(tokenizer, pixels):
    return tokenizer.vectors(tokenizer.encode(pixels), 0)


def test_four_blocks_a_level_are_ibq_or_vqgan_and_the_user_says_which(found):
    for blocks in (1, 2, 3):
        assert found(tiny.vq_shapes(blocks=blocks)).name == "vqgan"
    for blocks in (4, 5):
        with pytest.raises(CheckpointError, match=r"fits vqgan and ibq, .* Choose with --family"):
            found(tiny.vq_shapes(blocks=blocks))
    vqgan = found(tiny.vq_shapes(blocks=4), "vqgan").describe()
    assert (vqgan.rule, vqgan.temperature) == ("l2", 1) and not vqgan.notes
    ibq = found(tiny.vq_shapes(blocks=2), "ibq").describe()
    assert (ibq.rule, ibq.temperature) == ("dot", 0.01)
    assert not found(tiny.vq_shapes(blocks=2), "vqgan").describe().notes


def test_var_and_gumbel_of_four_blocks_are_no_ibq(found):
    settings = TokenizerSettings(16, (1, 8))
    assert found(tiny.var_shapes(blocks=4), settings=settings).name == "var"
    assert found(tiny.gumbel_shapes(blocks=4)).name == "vqgan"


def test_gumbel_is_a_linear_layer(load, pixels):
    weights = random_weights(tiny.gumbel_shapes())
    tokenizer = load(weights)
    spec = tokenizer.spec
    assert (spec.family, spec.rule, spec.vocab_size, spec.temperature) == ("vqgan", "logits", 40, 1)
    assert "true posterior" in spec.temperature_source
    z_BlC = latents(tokenizer, pixels)
    sums = assign(z_BlC, tokenizer.codebook(0), [1.0, 0.3])
    logit_BlV = (
        torch.einsum("blc,vc->blv", z_BlC.double(), weights["quantize.proj.weight"].double()[:, :, 0, 0])
        + weights["quantize.proj.bias"].double()
    )
    assert torch.equal(sums.idx_Bl, logit_BlV.argmax(2))
    for t, temperature in enumerate((1.0, 0.3)):
        log_q_BlV = (logit_BlV / temperature).log_softmax(2)
        entropy_B = -(log_q_BlV.exp() * log_q_BlV).sum((1, 2))
        torch.testing.assert_close(sums.entropy_BT[:, t], entropy_B, atol=1e-4, rtol=0)
    assert not sums.min_distance_B.any()  # it has no distances
    for rule in ("l2", "cosine", "dot"):
        with pytest.raises(CheckpointError, match=f"rule {rule}: .* assigned by logits"):
            load(weights, settings=TokenizerSettings(16, rule=rule))
    with pytest.raises(CheckpointError, match=r"proj\.bias has shape \(3,\), expected \(40,\)"):
        load(weights | {"quantize.proj.bias": torch.zeros(3)})


@pytest.mark.parametrize("shapes", [tiny.vq_shapes(), tiny.gumbel_shapes()], ids=["codes", "logits"])
def test_only_used_codes_are_codes(load, pixels, shapes):
    weights, used = random_weights(shapes), torch.tensor([7, 0, 39, 12])
    tokenizer = load(weights | {"quantize.used": used})
    assert tokenizer.spec.scales[0].vocabulary.size == tokenizer.spec.vocab_size == 4
    assert "only the 4 codes" in tokenizer.spec.notes[0]
    z_BlC = latents(tokenizer, pixels)
    found = assign(z_BlC, tokenizer.codebook(0), [1.0])
    of_all = load(weights).codebook(0).logits(z_BlC.flatten(0, 1))[0]
    assert torch.equal(found.idx_Bl.flatten(), of_all[:, used].argmax(1))
    assert found.soft_BTE.shape == (2, 1, 4)
    for broken, words in (
        (torch.tensor([0, 40]), "codes that don't exist"),
        (torch.tensor([-1, 3]), "codes that don't exist"),
        (torch.tensor([3, 3]), "a code twice"),
        (torch.tensor([], dtype=torch.int64), "has shape"),
        (torch.tensor([[1, 2]]), "has shape"),
        (torch.tensor(1), "has shape"),
        (torch.tensor([0.0, 1.0]), "expected plain integers"),
    ):
        with pytest.raises(CheckpointError, match=rf"quantize\.used .*{words}"):
            load(weights | {"quantize.used": broken})


def chameleon_shapes(**sizes):
    """Of its codes and levels, otherwise tiny, but for attention in the levels, which it lacks."""
    shapes = tiny.vq_shapes(latent_dim=256, vocab_size=8192, **sizes)
    return {name: shape for name, shape in shapes.items() if ".attn." not in name}


CHAMELEON = "transparency on white, shorter side to 512 (LANCZOS), centre crop 512 x 512"


def test_chameleon_by_its_prefix_or_its_shapes(found):
    nothing = TokenizerSettings()
    named = found(tiny.vq_shapes(latent_dim=256, vocab_size=8192), "auto", nothing, "model.vqmodel.")
    assert named.name == "vqgan" and named.describe().crop.words == CHAMELEON
    shaped = found(chameleon_shapes(widths=(32,) * 5), settings=nothing).describe()
    assert shaped.crop.words == CHAMELEON and "Chameleon" in shaped.notes[0]
    assert (shaped.image_size, shaped.scales[0].tokens, shaped.rule) == (512, 32 * 32, "l2")
    for other in (
        found(chameleon_shapes(widths=(32,) * 4), settings=nothing),
        found(tiny.vq_shapes(latent_dim=256, vocab_size=8192, widths=(32,) * 5), settings=nothing),
        found(tiny.vq_shapes(latent_dim=8, vocab_size=64), "auto", nothing, "model.vqmodel."),
    ):
        assert other.describe().image_size == 256 and not other.describe().notes
    small = found(chameleon_shapes(widths=(32,) * 5), settings=SMALL).describe()
    assert small.image_size == 16 and "shorter side to 16 (LANCZOS)" in small.crop.words


def test_janus_by_its_prefix(found):
    nothing = TokenizerSettings()
    own = found(EXAMPLES["llamagen"].shapes, "auto", nothing, "gen_vision_model.")
    assert own.name == "llamagen"
    assert (own.describe().image_size, own.describe().scales[0].patch_num) == (384, 192)
    # As transformers renames it, its names are those of a VQGAN.
    shapes = tiny.vq_shapes(latent_dim=8, vocab_size=16384)
    for prefix in ("model.vqmodel.", "vqmodel."):
        renamed = found(shapes, "auto", nothing, prefix)
        spec = renamed.describe()
        assert (renamed.name, spec.rule, spec.temperature) == ("llamagen", "cosine", 0.01)
        assert spec.image_size == 384 and "Janus" in spec.notes[0]
        assert found(shapes, "vqgan", nothing, prefix).describe().rule == "l2"
    # Without its prefix it may be latent diffusion's, whose training leaves its loss in the file.
    with pytest.raises(CheckpointError, match=r"fits vqgan and llamagen, .* Choose with --family"):
        found(shapes, settings=nothing)
    assert found(shapes | {"loss.logvar": (1,)}, settings=nothing).name == "vqgan"
    assert found(EXAMPLES["llamagen"].shapes, settings=nothing).describe().image_size == 256


def test_llamagen_needs_no_record_of_usage(load, pixels):
    weights = random_weights(EXAMPLES["llamagen"].shapes)
    recorded = weights | {"quantize.codebook_used": torch.full((65536,), torch.nan)}
    assert torch.equal(latents(load(weights), pixels), latents(load(recorded), pixels))


def test_vaex_has_a_single_scale(load, pixels):
    shapes = tiny.var_shapes(phis=0) | tiny.layer("quantize.quant_resi", 6, 6, 3, 3)
    weights = random_weights(shapes) | {"quantize.vocab_usage": torch.zeros(40)}
    tokenizer = load(weights)
    assert tokenizer.spec.family == "var"
    assert [(s.name, s.tokens, s.patch_num) for s in tokenizer.spec.scales] == [("8 x 8", 64, 8)]
    assert torch.equal(latents(tokenizer, pixels), tokenizer.encode(pixels).flatten(2).transpose(1, 2))
    with pytest.raises(CheckpointError, match="single scale of 8 x 8"):
        load(weights, settings=TokenizerSettings(16, (1, 8)))


def test_open_magvit2_is_read_averaged_unless_asked(load, pixels):
    raw, averaged = (random_weights(tiny.magvit2_shapes(), seed) for seed in (1, 2))
    twins = {f"model_ema.{name.replace('.', '')}": weight for name, weight in averaged.items()}
    both = (
        raw | twins | {"model_ema.decay": torch.tensor(0.999), "model_ema.num_updates": torch.tensor(3)}
    )
    found = {}
    for weights, expected in ((None, averaged), ("ema", averaged), ("raw", raw)):
        tokenizer = load(both, settings=TokenizerSettings(16, weights=weights))
        found[weights] = latents(tokenizer, pixels)
        assert torch.equal(found[weights], latents(load(expected), pixels))
    assert not torch.equal(found["raw"] > 0, found["ema"] > 0)
    # The families whose authors evaluate with the raw weights.
    raw, averaged = (random_weights(EXAMPLES["vqgan"].shapes, seed) for seed in (1, 2))
    twins = {f"model_ema.{name.replace('.', '')}": weight for name, weight in averaged.items()}
    assert torch.equal(latents(load(raw | twins), pixels), latents(load(raw), pixels))


def test_open_magvit2_with_any_number_of_blocks_in_the_middle(load, pixels):
    weights = random_weights(tiny.magvit2_shapes(middles=4))
    found = {}
    for middles in (1, 2, 4):
        kept = {
            name: weight
            for name, weight in weights.items()
            if not any(name.startswith(f"encoder.mid_block.{i}.") for i in range(middles, 4))
        }
        found[middles] = latents(load(kept), pixels)
    assert not torch.equal(found[1], found[2]) and not torch.equal(found[2], found[4])
    # Blocks whose second convolution is zero change nothing.
    idle = {
        name: torch.zeros_like(w)
        if "mid_block" in name and "0.conv" not in name and "conv2" in name
        else w
        for name, w in weights.items()
    }
    assert torch.equal(latents(load(idle), pixels), found[1])
    with pytest.raises(CheckpointError, match=r"got encoder\.mid_block\.3\."):
        load({name: w for name, w in weights.items() if "mid_block.2." not in name})


def test_the_first_bit_of_open_magvit2_is_the_least_significant(load):
    codebook = load(tiny.magvit2_shapes(bits=3)).codebook(0)
    assert isinstance(codebook, Grid)
    z_BlC = torch.tensor([[[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, -1.0]]])
    assert assign(z_BlC, codebook, []).idx_Bl.tolist() == [[1, 2, 4, 3]]


def test_published_open_magvit2_has_too_many_codes_to_count(found):
    scale = found(tiny.magvit2_shapes(bits=18)).describe().scales[0]
    assert scale.vocabulary.size == 2**18 and scale.vocabulary.levels == (2,) * 18


def test_rq_vae_has_depths_of_their_own_sizes(load, pixels):
    weights = random_weights(tiny.rq_shapes((20, 8, 40)))
    weights["quantizer.codebooks.1.weight"][-1] = 0  # the padding would be the nearest of nearly all
    weights["quantizer.codebooks.1.weight"][:-1] *= 50
    tokenizer = load(weights)
    assert [(s.name, s.tokens, s.patch_num, s.vocabulary.size) for s in tokenizer.spec.scales] == [
        ("depth 0", 64, None, 20),
        ("depth 1", 64, None, 8),
        ("depth 2", 64, None, 40),
    ]
    assert tokenizer.spec.vocab_size == 40  # the most, wherever it is
    rest_BChw = tokenizer.encode(pixels)
    for s, size in enumerate((20, 8, 40)):
        sums = assign(tokenizer.vectors(rest_BChw, s), tokenizer.codebook(s), [1.0])
        assert sums.soft_BTE.shape == (2, 1, size)
        codes_VC = weights[f"quantizer.codebooks.{s}.weight"]
        left_BChw = rest_BChw - codes_VC[sums.idx_Bl].transpose(1, 2).view_as(rest_BChw)
        assert torch.equal(tokenizer.subtract(rest_BChw, sums.idx_Bl, s), left_BChw)
        rest_BChw = left_BChw
    for rule in ("cosine", "dot"):
        with pytest.raises(CheckpointError, match=f"rule {rule}: .* assigned by l2"):
            load(weights, settings=TokenizerSettings(16, rule=rule))
    with pytest.raises(CheckpointError, match=r"codebooks\.1\.weight holds no codes"):
        load(weights | {"quantizer.codebooks.1.weight": torch.zeros(1, 6)})


def test_titok_of_both_decoders(load, pixels):
    first, later, both = (
        tiny.titok_shapes(decoder, latent_dim)
        for decoder, latent_dim in (
            ("decoder.ffn.2.weight", 12),
            ("decoder.conv_out.weight", 12),
            ("decoder.conv_out.weight", 16),
        )
    )
    assert load(both, settings=TokenizerSettings()).spec.rule == "l2"
    weights = random_weights(first)
    scrambled, straight = load(weights), load({k: weights.get(k, torch.zeros(1)) for k in later})
    assert scrambled.encoder.scrambled and not straight.encoder.scrambled
    assert not torch.allclose(latents(scrambled, pixels), latents(straight, pixels))
    # A file without its decoder: by the length of its codes.
    for shapes, expected in ((first, True), (both, False)):
        bare = {name: shape for name, shape in shapes.items() if not name.startswith("decoder.")}
        assert load(bare, settings=TokenizerSettings()).encoder.scrambled == expected


def test_titok_without_codes(load):
    shapes = {n: s for n, s in tiny.titok_shapes().items() if not n.startswith("decoder.")}
    weights, name = random_weights(shapes), "quantize.embedding.weight"
    for codes, words in (
        (torch.zeros(0, 12), "holds no codes"),
        (torch.tensor(1.0), r"is \(\), expected 2 axes"),
        (torch.zeros(40, 11), "a code has 11 dimensions, a latent 12"),
    ):
        with pytest.raises(CheckpointError, match=words):
            load(weights | {name: codes}, settings=TokenizerSettings())


RULES = ("l2", "cosine", "dot")


@pytest.mark.parametrize("name", ["var", "vqgan", "llamagen", "ibq", "diffusers", "titok"])
def test_the_rule_is_the_users_choice(load, pixels, name):
    example = EXAMPLES[name]
    weights = random_weights(example.shapes)
    codes_VC = weights["quantize.embedding.weight"]
    own = load(weights, example.family, example.settings).spec
    for rule in RULES:
        given = {**vars(example.settings), "rule": rule}
        tokenizer = load(weights, example.family, TokenizerSettings(**given))
        spec = tokenizer.spec
        assert spec.rule == rule
        if rule == own.rule:
            assert spec == own
        else:
            assert spec.temperature == ("auto" if rule == "cosine" else 1)
            assert f"with the rule {rule}" in spec.temperature_source
        z_BlC = latents(tokenizer, pixels)
        dot_BlV = z_BlC @ codes_VC.T
        logit_BlV = {
            "l2": 2 * dot_BlV - codes_VC.square().sum(1),
            "cosine": dot_BlV / codes_VC.norm(dim=1),
            "dot": dot_BlV,
        }[rule]
        assert torch.equal(assign(z_BlC, tokenizer.codebook(0), []).idx_Bl, logit_BlV.argmax(2))


@pytest.mark.parametrize("name", ["vqgan", "llamagen", "ibq", "open-magvit2", "rq-vae", "diffusers"])
def test_a_single_scale_takes_no_other_patch_nums(found, name):
    shapes, family = EXAMPLES[name].shapes, EXAMPLES[name].family
    assert found(shapes, family, TokenizerSettings(16, (8,))).describe().scales[0].tokens == 64
    for patch_nums in ((1, 8), (16,)):
        with pytest.raises(CheckpointError, match="a single scale of 8 x 8"):
            found(shapes, family, TokenizerSettings(16, patch_nums)).describe()


def test_titok_takes_no_patch_nums(found):
    with pytest.raises(CheckpointError, match="got --patch-nums"):
        found(EXAMPLES["titok"].shapes, settings=TokenizerSettings(None, (5,))).describe()


@pytest.mark.parametrize("name", ["open-magvit2", "rq-vae"])
def test_rules_that_codes_do_not_leave_open(found, name):
    with pytest.raises(CheckpointError, match=r"rule cosine: .* assigned by (sign|l2)"):
        found(EXAMPLES[name].shapes, settings=TokenizerSettings(16, rule="cosine")).describe()


def test_codes_that_do_not_fit(load):
    weights, name = random_weights(tiny.vq_shapes()), "quantize.embedding.weight"
    for codes, words in (
        (torch.zeros(40, 5), "holds codes of 5 dimensions, but the encoder gives latents of 6"),
        (torch.zeros(0, 6), "holds no codes"),
        (torch.zeros(6), r"has shape \(6,\)"),
        (torch.tensor(1.0), r"has shape \(\)"),
    ):
        with pytest.raises(CheckpointError, match=rf"quantize\.embedding\.weight {words}"):
            load(weights | {name: codes})


def test_attention_of_other_sizes_is_refused(load):
    weights = random_weights(tiny.vq_shapes(LDM))
    wide = torch.zeros(32, 64, 1, 1), torch.zeros(32)
    for part in ("q", "v", "proj_out"):
        name = f"encoder.mid.attn_1.{part}"
        changed = weights | {f"{name}.weight": wide[0], f"{name}.bias": wide[1]}
        with pytest.raises(CheckpointError, match="sizes contradict each other"):
            load(changed)
    with pytest.raises(CheckpointError, match="are of different sizes"):
        load(weights | {"encoder.mid.attn_1.k.weight": torch.zeros(64, 32, 1, 1)})

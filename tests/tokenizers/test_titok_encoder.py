"""TiTok's encoder against its equations, written out in float64 over the raw weights."""

import math

import pytest
import torch

from entropy_cli.tokenizers.layers.titok_encoder import TiTokEncoder

WIDTH, HIDDEN, LAYERS, PATCH, GRID, TOKENS, CODES, LATENT_DIM = 128, 320, 3, 4, 3, 6, 20, 5
LEGACY, LATER = "decoder.ffn.2.weight", "decoder.conv_out.weight"


def published_shapes(decoder=LEGACY):
    shapes = {
        "latent_tokens": (TOKENS, WIDTH),
        "encoder.class_embedding": (1, WIDTH),
        "encoder.positional_embedding": (GRID**2 + 1, WIDTH),
        "encoder.latent_token_positional_embedding": (TOKENS, WIDTH),
        "encoder.patch_embed.weight": (WIDTH, 3, PATCH, PATCH),
        "encoder.patch_embed.bias": (WIDTH,),
        "encoder.conv_out.weight": (LATENT_DIM, WIDTH, 1, 1),
        "encoder.conv_out.bias": (LATENT_DIM,),
        "quantize.embedding.weight": (CODES, LATENT_DIM),
        decoder: (1,),
    }
    norms = ["encoder.ln_pre", "encoder.ln_post"]
    for i in range(LAYERS):
        block = f"encoder.transformer.{i}"
        norms += [f"{block}.ln_1", f"{block}.ln_2"]
        shapes[f"{block}.attn.in_proj_weight"] = (3 * WIDTH, WIDTH)
        shapes[f"{block}.attn.in_proj_bias"] = (3 * WIDTH,)
        linears = {
            "attn.out_proj": (WIDTH, WIDTH),
            "mlp.c_fc": (HIDDEN, WIDTH),
            "mlp.c_proj": (WIDTH, HIDDEN),
        }
        for name, shape in linears.items():
            shapes |= {f"{block}.{name}.weight": shape, f"{block}.{name}.bias": shape[:1]}
    for norm in norms:
        shapes |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    return shapes


def random_weights(shapes):
    """Of such sizes that no part of the encoder is lost beside another."""
    generator = torch.Generator().manual_seed(7)
    weights = {}
    for name, shape in shapes.items():
        weight = torch.randn(shape, generator=generator)
        if "ln_" in name:
            weight = 0.3 * weight + name.endswith("weight")
        elif name.endswith(("bias", "embedding", "latent_tokens")):
            weight = 0.5 * weight
        else:
            weight = 1.4 * weight / math.sqrt(math.prod(shape[1:]))
        weights[name] = weight
    return weights


def encoder_keys(weights):
    kept = {name for name in weights if name.startswith("encoder.")} | {"latent_tokens"}
    return {name.removeprefix("encoder."): weights[name] for name in kept}


def loaded(shapes, weights):
    encoder = TiTokEncoder(shapes)
    encoder.load_state_dict(encoder_keys(weights), strict=True)
    return encoder.eval().requires_grad_(requires_grad=False)


def norm(x, weights, name):
    centred = x - x.mean(-1, keepdim=True)
    scale = torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5)
    return centred / scale * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x, weights, name):
    return torch.einsum("bnc,dc->bnd", x, weights[f"{name}.weight"]) + weights[f"{name}.bias"]


def attention(x, weights, name):
    out = torch.zeros_like(x)
    rows = [weights[f"{name}.in_proj_weight"][i * WIDTH : (i + 1) * WIDTH] for i in range(3)]
    biases = [weights[f"{name}.in_proj_bias"][i * WIDTH : (i + 1) * WIDTH] for i in range(3)]
    q, k, v = (torch.einsum("bnc,dc->bnd", x, rows[i]) + biases[i] for i in range(3))
    for head in range(WIDTH // 64):
        of_head = slice(64 * head, 64 * head + 64)
        scores = torch.exp(torch.einsum("bnd,bmd->bnm", q[..., of_head], k[..., of_head]) / 8)
        shares = scores / scores.sum(-1, keepdim=True)
        out[..., of_head] = torch.einsum("bnm,bmd->bnd", shares, v[..., of_head])
    return linear(out, weights, f"{name}.out_proj")


def perceptron(x, weights, name):
    h = linear(x, weights, f"{name}.c_fc")
    return linear(h * (1 + torch.erf(h / math.sqrt(2))) / 2, weights, f"{name}.c_proj")


def reference(pictures, weights, *, scrambled):
    """The latents, one token after the other, all in float64."""
    weights = {name: weight.double() for name, weight in weights.items()}
    places = []
    for row in range(GRID):
        for column in range(GRID):
            y, x = PATCH * row, PATCH * column
            patch = pictures.double()[:, :, y : y + PATCH, x : x + PATCH]
            place = torch.einsum("bchw,dchw->bd", patch, weights["encoder.patch_embed.weight"])
            places.append(place + weights["encoder.patch_embed.bias"])
    x = torch.stack([weights["encoder.class_embedding"].expand(len(pictures), -1), *places], dim=1)
    x = x + weights["encoder.positional_embedding"]
    asked = weights["latent_tokens"] + weights["encoder.latent_token_positional_embedding"]
    x = norm(torch.cat([x, asked.expand(len(pictures), -1, -1)], dim=1), weights, "encoder.ln_pre")
    for i in range(LAYERS):
        block = f"encoder.transformer.{i}"
        x = x + attention(norm(x, weights, f"{block}.ln_1"), weights, f"{block}.attn")
        x = x + perceptron(norm(x, weights, f"{block}.ln_2"), weights, f"{block}.mlp")
    said = norm(x[:, GRID**2 + 1 :], weights, "encoder.ln_post")
    if scrambled:
        flat = said.flatten(1)
        read = torch.zeros_like(said)
        for token in range(TOKENS):
            for channel in range(WIDTH):
                read[:, token, channel] = flat[:, channel * TOKENS + token]
        said = read
    matrix = weights["encoder.conv_out.weight"][:, :, 0, 0]
    return torch.einsum("blc,dc->bld", said, matrix) + weights["encoder.conv_out.bias"]


@pytest.fixture
def pixels():
    return torch.rand(3, 3, PATCH * GRID, PATCH * GRID, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("decoder", [LEGACY, LATER])
def test_latents_are_those_of_the_equations(pixels, decoder):
    shapes = published_shapes(decoder)
    weights = random_weights(shapes)
    encoder = loaded(shapes, weights)
    z_BlC = encoder(pixels)
    expected = reference(pixels, weights, scrambled=decoder == LEGACY)
    assert z_BlC.dtype == torch.float32
    assert encoder.image_size == PATCH * GRID
    torch.testing.assert_close(z_BlC.double(), expected, atol=1e-5, rtol=1e-5)
    channels_last = encoder(pixels.to(memory_format=torch.channels_last))
    torch.testing.assert_close(channels_last, z_BlC, atol=1e-5, rtol=1e-5)


def test_the_test_would_see_attention_and_the_order_of_reading(pixels):
    weights = random_weights(published_shapes())
    expected = reference(pixels, weights, scrambled=True)
    assert (expected - reference(pixels, weights, scrambled=False)).abs().max() > 0.1
    for i in range(LAYERS):
        name = f"encoder.transformer.{i}.attn.in_proj_weight"
        even = weights[name].clone()
        even[: 2 * WIDTH] = 0
        assert (expected - reference(pixels, {**weights, name: even}, scrambled=True)).abs().max() > 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_precisions_are_near_and_give_float32(pixels, dtype):
    shapes = published_shapes()
    weights = random_weights(shapes)
    encoder = loaded(shapes, weights)
    expected = encoder(pixels)
    for cast in ("convolutions", "all", "none"):
        encoder = loaded(shapes, weights)
        for module in (encoder.patch_embed, encoder.conv_out, *[encoder] * (cast == "all")):
            module.to(torch.float32 if cast == "none" else dtype)
        with torch.autocast("cpu", dtype, enabled=cast == "none"):
            z_BlC = encoder(pixels)
        assert z_BlC.dtype == torch.float32
        torch.testing.assert_close(z_BlC, expected, atol=0.2, rtol=0)


def test_the_order_of_reading_can_be_told(pixels):
    shapes = published_shapes(LATER)
    weights = random_weights(shapes)
    encoder = TiTokEncoder({name: shapes[name] for name in shapes if name != LATER}, scrambled=True)
    encoder.load_state_dict(encoder_keys(weights), strict=True)
    expected = reference(pixels, weights, scrambled=True)
    torch.testing.assert_close(encoder(pixels).double(), expected, atol=1e-5, rtol=1e-5)


def test_a_weight_more_or_less_does_not_load():
    shapes = published_shapes()
    weights = encoder_keys(random_weights(shapes))
    with pytest.raises(RuntimeError, match="Unexpected"):
        TiTokEncoder(shapes).load_state_dict({**weights, "mask_token": torch.zeros(1)}, strict=True)
    weights.pop("latent_tokens")
    with pytest.raises(RuntimeError, match="Missing"):
        TiTokEncoder(shapes).load_state_dict(weights, strict=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"latent_tokens": None}, "latent_tokens is missing"),
        ({"latent_tokens": (TOKENS, WIDTH, 1)}, "expected 2 axes"),
        ({"latent_tokens": (TOKENS, 100)}, "of width 100"),
        ({"latent_tokens": (0, WIDTH)}, "0 tokens"),
        ({"encoder.positional_embedding": (GRID**2, WIDTH)}, "9 positions"),
        ({"encoder.positional_embedding": (1, WIDTH)}, "1 positions"),
        ({"encoder.latent_token_positional_embedding": (TOKENS + 1, WIDTH)}, "other weights ask"),
        ({"encoder.patch_embed.weight": (WIDTH, 4, PATCH, PATCH)}, "patch_embed.weight is "),
        ({"encoder.patch_embed.weight": (WIDTH, 3, PATCH, 2)}, "patch_embed.weight is "),
        ({"encoder.transformer.0.mlp.c_fc.weight": None}, "got encoder.transformer.0"),
        ({"encoder.transformer.1.ln_2.bias": None}, "ln_2.bias is missing"),
        ({"encoder.transformer.2.attn.in_proj_weight": (WIDTH, WIDTH)}, "in_proj_weight is"),
        ({"encoder.mask_token": (1, 1, WIDTH)}, "got encoder.mask_token"),
        ({"quantize.embedding.weight": None}, "are no tokens"),
        ({"quantize.embedding.weight": (CODES, LATENT_DIM + 1)}, "a code has 6"),
        ({LEGACY: None}, "tell if latents"),
        ({LATER: (3, 3, 3, 3)}, "tell if latents"),
    ],
)
def test_shapes_that_contradict_each_other(changes, words):
    shapes = {**published_shapes(), **changes}
    with pytest.raises(ValueError, match=words):
        TiTokEncoder({name: shape for name, shape in shapes.items() if shape is not None})

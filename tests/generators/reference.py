"""Logits of generators in plain float64, by the formulae, with the usual mistakes to choose from."""

import math

import torch
from torch.nn.functional import gelu, silu

LN_100 = torch.tensor(100.0).log().item()  # float32's, as in the published code


def softmax_of(query, key, value, factor, allowed):
    scores = (query @ key.transpose(-1, -2) * factor).masked_fill(~allowed, -math.inf)
    return scores.softmax(-1) @ value


def heads_of(x_BLC, heads):
    return x_BLC.unflatten(-1, (heads, -1)).transpose(1, 2)


def var_logits(weights, spec, label_B, idx_BL, inputs_BMC, wrong=""):
    w = {name: weight.double() for name, weight in weights.items()}
    C, S = spec["width"], len(spec["patch_nums"])
    scale_L = torch.tensor([s for s, n in enumerate(spec["patch_nums"]) for _ in range(n * n)])
    allowed = scale_L[:, None] >= scale_L
    if wrong == "token-causal mask":
        allowed = torch.ones_like(allowed).tril()
    if wrong == "own scale hidden":
        allowed = (scale_L[:, None] > scale_L) | torch.eye(len(scale_L), dtype=torch.bool)
    eps = 1e-5 if wrong == "eps" else 1e-6

    def norm(h):
        return (h - h.mean(-1, keepdim=True)) / (h.var(-1, correction=0, keepdim=True) + eps).sqrt()

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    label_B = label_B.roll(1) if wrong == "other labels" else label_B
    e_BC = w["class_emb.weight"][label_B]
    start = e_BC[:, None] + w["pos_start"]
    h = torch.cat([start, linear(inputs_BMC.double(), "word_embed")], 1)
    h = h + w["lvl_embed.weight"][scale_L] + w["pos_1LC"]
    assert int(scale_L[-1]) == S - 1
    for i in range(spec["depth"]):
        block = f"blocks.{i}"
        if f"{block}.ada_gss" in w:
            six = w[f"{block}.ada_gss"][0, 0] + linear(silu(e_BC), "shared_ada_lin.1").view(-1, 6, C)
        else:
            six = linear(silu(e_BC), f"{block}.ada_lin.1").view(-1, 6, C)
        gate1, gate2, scale1, scale2, shift1, shift2 = six[:, :, None].unbind(1)
        if wrong == "DiT's order":
            shift1, scale1, gate1, shift2, scale2, gate2 = six[:, :, None].unbind(1)
        x = norm(h) * (1 + scale1) + shift1
        bias = torch.cat([w[f"{block}.attn.q_bias"], torch.zeros(C), w[f"{block}.attn.v_bias"]])
        q, k, v = (
            heads_of(part, spec["heads"])
            for part in (x @ w[f"{block}.attn.mat_qkv.weight"].T + bias).chunk(3, -1)
        )
        factor = 0.25 / math.sqrt(C / spec["heads"])
        if (name := f"{block}.attn.scale_mul_1H11") in w:
            bound = math.inf if wrong == "no clamp" else LN_100
            q = q / q.norm(dim=-1, keepdim=True) * w[name].clamp(max=bound).exp()
            k = k / k.norm(dim=-1, keepdim=True)
            factor = 1 / math.sqrt(C / spec["heads"]) if wrong == "1/sqrt(d)" else 1.0
        out = softmax_of(q, k, v, factor, allowed).transpose(1, 2).flatten(2)
        h = h + gate1 * linear(out, f"{block}.attn.proj")
        x = linear(norm(h) * (1 + scale2) + shift2, f"{block}.ffn.fc1")
        x = gelu(x, approximate="none" if wrong == "exact gelu" else "tanh")
        h = h + gate2 * linear(x, f"{block}.ffn.fc2")
    scale, shift = linear(silu(e_BC), "head_nm.ada_lin.1").view(-1, 2, 1, C).unbind(1)
    return linear(norm(h) * (1 + scale) + shift, "head")


VAR_MISTAKES = (
    *("other labels", "token-causal mask", "own scale hidden", "1/sqrt(d)", "DiT's order"),
    *("no clamp", "exact gelu", "eps"),
)


def gpt_logits(weights, spec, label_B, idx_BL, _inputs, wrong=""):
    w = {name: weight.double() for name, weight in weights.items()}
    (side,), d = spec["patch_nums"], spec["width"] // spec["heads"]
    L = side * side
    eps = 1e-6 if wrong == "eps" else spec.get("norm_eps", 1e-5)
    base = spec.get("rope_base", 10000)

    def norm(h, name):
        return h / (h.square().mean(-1, keepdim=True) + eps).sqrt() * w[f"{name}.weight"]

    def turned(x_BHLd):
        """By row and column of the token at each place, in plain numbers."""
        out = torch.zeros_like(x_BHLd)
        for place in range(L):
            grid = place if wrong == "one too far" else place - 1
            if grid < 0 and wrong != "class turned by 0":
                continue  # the class's cosine and sine are 0
            row, column = divmod(max(grid, 0), side)
            row, column = (column, row) if wrong == "columns first" else (row, column)
            for pair in range(d // 2):
                j = pair % (d // 4)
                angle = (row if pair < d // 4 else column) * base ** (-2 * j / (d // 2))
                a, b = (pair, pair + d // 2) if wrong == "halves" else (2 * pair, 2 * pair + 1)
                x, y = x_BHLd[:, :, place, a], x_BHLd[:, :, place, b]
                out[:, :, place, a] = x * math.cos(angle) - y * math.sin(angle)
                out[:, :, place, b] = y * math.cos(angle) + x * math.sin(angle)
        return out

    before_BL = idx_BL if wrong == "not shifted" else idx_BL.roll(1, 1)
    h = w["tok_embeddings.weight"][before_BL]
    h[:, 0] = w["cls_embedding.embedding_table.weight"][label_B]
    allowed = torch.ones(L, L, dtype=torch.bool).tril()
    for i in range(spec["depth"]):
        layer = f"layers.{i}"
        x = norm(h, f"{layer}.attention_norm") @ w[f"{layer}.attention.wqkv.weight"].T
        q, k, v = (heads_of(part, spec["heads"]) for part in x.chunk(3, -1))
        out = softmax_of(turned(q), turned(k), v, 1 / math.sqrt(d), allowed)
        h = h + out.transpose(1, 2).flatten(2) @ w[f"{layer}.attention.wo.weight"].T
        x = norm(h, f"{layer}.ffn_norm")
        w1, w3 = (x @ w[f"{layer}.feed_forward.{name}.weight"].T for name in ("w1", "w3"))
        w1, w3 = (w3, w1) if wrong == "w1, w3 swapped" else (w1, w3)
        h = h + (silu(w1) * w3) @ w[f"{layer}.feed_forward.w2.weight"].T
    return norm(h, "norm") @ w["output.weight"].T


GPT_MISTAKES = (
    *("not shifted", "w1, w3 swapped", "halves", "columns first", "one too far"),
    *("class turned by 0", "eps"),
)

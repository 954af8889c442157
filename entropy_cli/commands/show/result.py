"""The result of `show`, as JSON and as tables. Imports no torch."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from entropy_cli.core.table import Table, definitions, escape_terminal, wrapped

SCHEMA = "entropy-cli/show"
SCHEMA_VERSION = 1
UNDECIDED = 1.0  # nats of a token, above which it counts as undecided: e equally likely codes


@dataclass(frozen=True)
class ShownScale:
    """The tokens of one scale of one image; entropies in nats.

    Attributes:
        grid: rows and columns of the tokens, [1, tokens] where they have no grid.
        assignment_entropy: mean over the tokens.
        most_undecided: row and column, from 0, of the token of the largest entropy.
        share_above_1_nat: share of the tokens whose entropy is above 1 nat.
        psnr_db: PSNR of the image decoded up to this scale; null without a decoder.
        token_entropy: entropy of each token, row by row.
        codes: the most probable codes of each token, the most probable first.
        probabilities: their probabilities.
    """

    scale: int
    name: str
    patch_num: int | None
    grid: tuple[int, int]
    tokens: int
    temperature: float
    assignment_entropy: float
    nats_per_image: float
    largest: float
    most_undecided: tuple[int, int]
    share_above_1_nat: float
    psnr_db: float | None
    token_entropy: list[float]
    codes: list[list[int]]
    probabilities: list[list[float]]


def shown_scale(
    name: str,
    place: tuple[int, int | None, tuple[int, int]],
    temperature: float,
    tokens: tuple[Sequence[float], list[list[int]], list[list[float]]],
    psnr_db: float | None,
) -> ShownScale:
    """Summarize the tokens of a scale.

    Args:
        name: as shown in tables.
        place: index of the scale, side of its grid as in `estimate`, and its rows and columns.
        temperature: divisor of the squared distance.
        tokens: entropies in nats, codes and probabilities of each token.
        psnr_db: PSNR of the image decoded up to this scale.
    """
    entropies, codes, probabilities = tokens
    scale, patch_num, grid = place
    worst = max(range(len(entropies)), key=entropies.__getitem__)
    total = math.fsum(entropies)
    return ShownScale(
        scale=scale,
        name=name,
        patch_num=patch_num,
        grid=grid,
        tokens=len(entropies),
        temperature=temperature,
        assignment_entropy=total / len(entropies),
        nats_per_image=total,
        largest=entropies[worst],
        most_undecided=(worst // grid[1], worst % grid[1]),
        share_above_1_nat=sum(h > UNDECIDED for h in entropies) / len(entropies),
        psnr_db=psnr_db,
        token_entropy=list(entropies),
        codes=codes,
        probabilities=probabilities,
    )


@dataclass(frozen=True)
class ShownImage:
    """The totals of one image and its scales.

    Attributes:
        picture: path of its figure.
        assignment_entropy: mean over all tokens, nats per token.
        nats_per_image: sum over all tokens.
        bits_per_pixel: that sum in bits, divided by the pixels of the crop.
    """

    image: str
    picture: str
    tokens: int
    assignment_entropy: float
    nats_per_image: float
    bits_per_pixel: float
    scales: list[ShownScale]


def shown_image(image: str, picture: str, side: int, scales: list[ShownScale]) -> ShownImage:
    """Add up the scales of an image whose crop is `side` pixels wide and high."""
    total = math.fsum(scale.nats_per_image for scale in scales)
    tokens = sum(scale.tokens for scale in scales)
    bits_per_pixel = total / math.log(2) / side**2
    return ShownImage(image, picture, tokens, total / tokens, total, bits_per_pixel, scales)


@dataclass(frozen=True)
class ShowResult:
    """The images of one call.

    Attributes:
        tokenizer: family, vocab_size, latent_dim, patch_nums, rule, checkpoint.
        settings: temperature_source, image_size, preprocess, precision, no_decoder
            (the reason why there is none, or null).
    """

    tokenizer: dict[str, Any]
    settings: dict[str, Any]
    images: list[ShownImage]

    def to_json(self) -> str:
        """Return the result as JSON text."""
        head = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "units": "nats per token"}
        return json.dumps({**head, **asdict(self)}, allow_nan=False, indent=1)


def render(shown: ShowResult) -> str:
    """Render a table for each image, and the settings."""
    tokenizer, settings = shown.tokenizer, shown.settings
    tables = [_table(image, tokenizer["vocab_size"]) for image in shown.images]
    side = settings["image_size"]
    description = (
        f"{tokenizer['family']}, V = {tokenizer['vocab_size']}, rule {tokenizer['rule']}; crops of "
        f"{side} x {side} px"
    )
    footer = {
        "tokenizer": description,
        "temperature": settings["temperature_source"],
        "precision": f"{settings['precision']} (encoder)",
    }
    if settings["no_decoder"]:
        footer["decoder"] = f"no reconstructions: {settings['no_decoder']}"
    return "\n\n".join([*tables, definitions(footer)])


def _table(image: ShownImage, vocab_size: int) -> str:
    rows = [
        [
            scale.name,
            str(scale.tokens),
            f"{scale.temperature:g}",
            f"{scale.assignment_entropy:.4f}",
            f"{scale.largest:.4f}",
            _position(scale),
            f"{scale.share_above_1_nat:.1%}",
            "" if scale.psnr_db is None else f"{scale.psnr_db:.1f} dB",
        ]
        for scale in image.scales
    ]
    above = sum(scale.share_above_1_nat * scale.tokens for scale in image.scales) / image.tokens
    largest = max(scale.largest for scale in image.scales)
    last = ["all", str(image.tokens), "", f"{image.assignment_entropy:.4f}", f"{largest:.4f}", ""]
    head = ["scale", "tokens", "T", "nats/token", "largest", "at row, column", "above 1 nat", "PSNR"]
    rules = (len(rows),)
    table = Table("scales", "", head, [*rows, [*last, f"{above:.1%}", ""]], rules=rules)
    totals = (
        f"{image.nats_per_image:.2f} nats per image, {image.bits_per_pixel:.5f} bits per pixel; at most "
        f"ln V = {math.log(vocab_size):.4f} nats per token"
    )
    text = table.without_empty_columns().text()
    names = map(escape_terminal, (image.image, f"figure: {image.picture}"))
    return f"\n{text}\n{wrapped('', totals)}\n".join(names)


def _position(scale: ShownScale) -> str:
    row, column = scale.most_undecided
    return f"{row}, {column}" if scale.grid[0] > 1 or scale.tokens == 1 else f"{column}"

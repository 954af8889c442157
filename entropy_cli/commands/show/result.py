"""The result of `show`, as JSON and as tables. Imports no torch."""

import json
import math
from dataclasses import InitVar, asdict, dataclass, field
from typing import Any

from entropy_cli.core.escaping import one_line
from entropy_cli.core.table import Table, definitions, wrapped

SCHEMA = "entropy-cli/show"
SCHEMA_VERSION = 1
UNDECIDED = 1.0  # nats of a token, above which it counts as undecided: e equally likely codes


@dataclass
class ShownScale:
    """The tokens of one scale of one image; entropies in nats.

    Attributes:
        grid: rows and columns of the tokens, [1, tokens] where they have no grid.
        assignment_entropy: mean over the tokens.
        most_undecided: row and column, from 0, of the token of the largest entropy.
        share_above_1_nat: share of the tokens whose entropy is above 1 nat.
        psnr_db: PSNR of the image decoded up to this scale; null without a decoder.
        token_entropy: entropy of each token, row by row.
        codes: the most probable codes of each token, the most probable first; none where codes have no
            index.
        probabilities: their probabilities.
    """

    scale: int
    name: str
    patch_num: int | None
    grid: tuple[int, int]
    tokens: int = field(init=False)
    temperature: float
    assignment_entropy: float = field(init=False)
    nats_per_image: float = field(init=False)
    largest: float = field(init=False)
    most_undecided: tuple[int, int] = field(init=False)
    share_above_1_nat: float = field(init=False)
    psnr_db: float | None
    token_entropy: list[float]
    codes: list[list[int]]
    probabilities: list[list[float]]

    def __post_init__(self) -> None:
        """Summarize the tokens."""
        self.tokens, self.nats_per_image = len(self.token_entropy), math.fsum(self.token_entropy)
        self.assignment_entropy = self.nats_per_image / self.tokens
        self.largest = max(self.token_entropy)
        self.most_undecided = divmod(self.token_entropy.index(self.largest), self.grid[1])
        self.share_above_1_nat = sum(h > UNDECIDED for h in self.token_entropy) / self.tokens


@dataclass
class ShownImage:
    """The totals of one image and its scales.

    Attributes:
        picture: path of its figure.
        assignment_entropy: mean over all tokens, nats per token.
        nats_per_image: sum over all tokens.
        bits_per_pixel: that sum in bits, divided by the pixels of the crop, `side` wide and high.
    """

    image: str
    picture: str
    tokens: int = field(init=False)
    assignment_entropy: float = field(init=False)
    nats_per_image: float = field(init=False)
    bits_per_pixel: float = field(init=False)
    scales: list[ShownScale]
    side: InitVar[int]

    def __post_init__(self, side: int) -> None:
        """Add up the scales."""
        self.tokens = sum(scale.tokens for scale in self.scales)
        self.nats_per_image = math.fsum(scale.nats_per_image for scale in self.scales)
        self.assignment_entropy = self.nats_per_image / self.tokens
        self.bits_per_pixel = self.nats_per_image / math.log(2) / side**2


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
    side, vocab_size = settings["image_size"], tokenizer["vocab_size"]
    footer = {
        "tokenizer": f"{tokenizer['family']}, V = {vocab_size}, rule {tokenizer['rule']}; crops of "
        f"{side} x {side} px",
        "temperature": settings["temperature_source"],
        "precision": f"{settings['precision']} (encoder)",
    }
    if settings["no_decoder"]:
        footer["decoder"] = f"no reconstructions: {settings['no_decoder']}"
    tables = [_table(image, vocab_size) for image in shown.images]
    return "\n\n".join([*tables, definitions(footer)])


def _table(image: ShownImage, vocab_size: int) -> str:
    rows = [
        [
            scale.name,
            str(scale.tokens),
            f"{scale.temperature:g}",
            f"{scale.assignment_entropy:.4f}",
            f"{scale.largest:.4f}",
            ", ".join(map(str, scale.most_undecided[scale.grid[0] == 1 < scale.tokens :])),
            f"{scale.share_above_1_nat:.1%}",
            "" if scale.psnr_db is None else f"{scale.psnr_db:.1f} dB",
        ]
        for scale in image.scales
    ]
    above = sum(scale.share_above_1_nat * scale.tokens for scale in image.scales) / image.tokens
    largest = max(scale.largest for scale in image.scales)
    last = ["all", str(image.tokens), "", f"{image.assignment_entropy:.4f}", f"{largest:.4f}", ""]
    head = ["scale", "tokens", "T", "nats/\ntoken", "largest", "at row,\ncolumn", "above\n1 nat", "PSNR"]
    rules = (len(rows),)
    table = Table("scales", "", head, [*rows, [*last, f"{above:.1%}", ""]], rules=rules)
    totals = (
        f"{image.nats_per_image:.2f} nats per image, {image.bits_per_pixel:.5f} bits per pixel; at most "
        f"ln V = {math.log(vocab_size):.4f} nats per token"
    )
    text = table.without_empty_columns().text()
    return "\n".join(
        [one_line(image.image), text, wrapped("", totals), one_line(f"figure: {image.picture}")]
    )

"""List what a model family may see when it predicts a token, as chains of features of that token."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from entropy_cli.core.errors import EntropyCliError
from entropy_cli.entropy.ladder.ladder import Context

Chain = tuple[str, ...]  # features, the first the one that all predictions fall back to

# What each rung's experts see; a chain whose features a scale lacks is left out there.
POSITION: tuple[Chain, ...] = (("position",),)
CLASS: tuple[Chain, ...] = (("class",), ("class", "position"))
CONTEXT: Mapping[Context, tuple[Chain, ...]] = {
    "var": (
        ("parent",),
        ("parent", "grandparent"),
        ("parent", "parent beside"),
        ("parent", "parent above or below"),
        ("parent", "class"),
        ("parent", "position"),
    ),
    "raster": (
        ("left",),
        ("up",),
        ("left", "up"),
        ("up", "left", "up left"),
        ("up", "up right"),
        ("left", "class"),
    ),
    "depth": (
        ("depth before",),
        ("depth before", "two depths before"),
        ("depth before", "left"),
        ("depth before", "up"),
        ("depth before", "position"),
        ("left",),
        ("up", "left"),
    ),
    "none": (),
}
SEES: Mapping[Context, str] = {
    "var": "tokens of coarser scales",
    "raster": "tokens before it, row by row",
    "depth": "earlier depths and places",
    "none": "nothing",
}


class LaidOut(Protocol):
    """The part of a scale that says where its tokens are."""

    @property
    def name(self) -> str:
        """The scale, for display."""
        ...

    @property
    def tokens(self) -> int:
        """The number of an image's tokens."""
        ...

    @property
    def patch_num(self) -> int | None:
        """The side of their square grid, if they are on one."""
        ...


class Layout(NamedTuple):
    """Describe how the L tokens of an image are laid out.

    Attributes:
        tokens: the number of tokens of each scale.
        sides: the side of each scale's square grid; None where it is no grid.
        depths: whether the scales are depths at the same places.
    """

    tokens: Sequence[int]
    sides: Sequence[int | None]
    depths: bool = False

    @classmethod
    def of(cls, scales: Sequence[LaidOut]) -> "Layout":
        """Return the layout of a tokenizer's or a result's scales."""
        return cls(
            [scale.tokens for scale in scales],
            [scale.patch_num for scale in scales],
            all(scale.name.startswith("depth") for scale in scales),
        )

    def columns(self, scale: int) -> slice:
        """Return where the tokens of a scale are in a row."""
        start = sum(self.tokens[:scale])
        return slice(start, start + self.tokens[scale])


def choose_context(layout: Layout) -> Context:
    """Return the context that the tokenizer's usual models see."""
    if layout.depths:
        return "depth"
    if None in layout.sides:
        return "none"
    return "raster" if len(layout.sides) == 1 else "var"


def check_context(context: Context, layout: Layout) -> None:
    """Raise EntropyCliError if tokens laid out like this have no such context."""
    side = math.isqrt(layout.tokens[0])
    reasons = {
        "var": (None in layout.sides or len(layout.sides) < 2, "several square grids"),
        "raster": (None in layout.sides or len(layout.sides) > 1, "one square grid"),
        "depth": (
            len(set(layout.tokens)) > 1 or len(layout.tokens) < 2 or side * side != layout.tokens[0],
            "several depths of one square grid",
        ),
    }
    is_refused, expected = reasons.get(context, (False, ""))
    if is_refused:
        names = ", ".join(
            f"{tokens} tokens" if side is None else f"{side}x{side}"
            for tokens, side in zip(layout.tokens, layout.sides, strict=True)
        )
        raise EntropyCliError(
            f"--context {context}: needs {expected}, these tokens are {names}. Give another --context."
        )


def parents(side: int, coarser: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each row of a grid its row in a coarser grid, and the next one on the centre's side.

    Args:
        side: rows p of the grid.
        coarser: rows q of the coarser grid.

    Returns:
        floor((y + .5) q / p), and its neighbour towards the centre of row y, itself at the edge or where
        the centre lies in the middle; int64, (p,) each.
    """
    parent_p, rest_p = np.divmod((2 * np.arange(side) + 1) * coarser, 2 * side)
    beside_p = np.clip(parent_p + np.sign(rest_p - side), 0, coarser - 1)
    return parent_p, beside_p


@dataclass(frozen=True)
class Features:
    """The features of the tokens of one scale of M images, computed when they are asked for.

    Attributes:
        idx_ML: codes of all scales, int64.
        class_M: number of each image's class; None without classes.
    """

    idx_ML: np.ndarray
    layout: Layout
    scale: int
    context: Context
    class_M: np.ndarray | None

    def names(self) -> set[str]:
        """Return the features that the tokens of this scale have."""
        names = {"position"} if self.layout.tokens[self.scale] > 1 else set()
        if self.class_M is not None:
            names.add("class")
        return names | set(self._neighbours())

    def feature_N(self, name: str) -> np.ndarray:
        """Return a feature of each token, int64 from 0, (M l,)."""
        M, tokens = len(self.idx_ML), self.layout.tokens[self.scale]
        if name == "position":
            return np.tile(np.arange(tokens), M)
        if name == "class":
            assert self.class_M is not None
            return np.repeat(self.class_M, tokens)
        return self._neighbours()[name]().reshape(-1)

    def _neighbours(self) -> dict[str, Callable[[], np.ndarray]]:
        """Return how to read each feature that is a code at another place."""
        if self.context == "var":
            return self._coarser()
        if self.context in ("raster", "depth"):
            return self._before() | (self._depths() if self.context == "depth" else {})
        return {}

    def _coarser(self) -> dict[str, Callable[[], np.ndarray]]:
        scale, sides = self.scale, self.layout.sides
        side = sides[scale]
        assert side is not None
        found = {}
        if scale:
            coarser = sides[scale - 1]
            assert coarser is not None
            near, beside = parents(side, coarser)
            found["parent"] = lambda: self._at(scale - 1, near, near)
            found["parent beside"] = lambda: self._at(scale - 1, near, beside)
            found["parent above or below"] = lambda: self._at(scale - 1, beside, near)
        if scale > 1:
            coarsest = sides[scale - 2]
            assert coarsest is not None
            far, _ = parents(side, coarsest)
            found["grandparent"] = lambda: self._at(scale - 2, far, far)
        return found

    def _before(self) -> dict[str, Callable[[], np.ndarray]]:
        return {
            "left": lambda: self._shifted(0, 1),
            "up": lambda: self._shifted(1, 0),
            "up left": lambda: self._shifted(1, 1),
            "up right": lambda: self._shifted(1, -1),
        }

    def _depths(self) -> dict[str, Callable[[], np.ndarray]]:
        found = {
            "depth before": lambda: self.idx_ML[:, self.layout.columns(self.scale - 1)],
            "two depths before": lambda: self.idx_ML[:, self.layout.columns(self.scale - 2)],
        }
        return dict(list(found.items())[: self.scale])

    def _grid(self, scale: int) -> np.ndarray:
        side = math.isqrt(self.layout.tokens[scale])
        return self.idx_ML[:, self.layout.columns(scale)].reshape(-1, side, side)

    def _at(self, scale: int, row_p: np.ndarray, column_p: np.ndarray) -> np.ndarray:
        """Return the codes at some rows and columns of a scale, (M, p, p)."""
        return self._grid(scale)[:, row_p[:, None], column_p]

    def _shifted(self, rows: int, columns: int) -> np.ndarray:
        """Return 1 + the code so many rows above and columns to the left, 0 outside; (M, p, p)."""
        grid_Mpp = self._grid(self.scale)
        side = grid_Mpp.shape[1]
        padded = np.pad(grid_Mpp + 1, ((0, 0), (1, 0), (1, 1)))
        return padded[:, 1 - rows : 1 - rows + side, 1 - columns : 1 - columns + side]


def experts(features: Features, chains: Sequence[Chain]) -> list[Chain]:
    """Return the chains whose features this scale has."""
    names = features.names()
    return [chain for chain in chains if names.issuperset(chain)]

"""Everything that changes the number, in one value: runs that agree in it can be resumed and merged."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from entropy_cli.core.documents import from_json
from entropy_cli.core.errors import EntropyCliError
from entropy_cli.entropy.codebook import Grid
from entropy_cli.entropy.quantity import Cluster, TemperatureChoice, TokenPath
from entropy_cli.images.image_set import GROUPS
from entropy_cli.images.plan import BLOCK
from entropy_cli.tokenizers.base import Tokenizer
from entropy_cli.tokenizers.precision import Precision

FROZEN, PATH, CLUSTER = "frozen_temperatures", "path", "cluster"  # keys of the identity
# Keys of the identity of a run that evaluates a generator: what the losses depend on.
MODEL, SOFT_LABELS, TOKENS = "model_family", "soft_labels", "tokens_sha256"


def identity_of(cluster: Cluster) -> dict[str, Any]:
    """Return what groups of folders add to an identity; those of images nothing, as in older states."""
    return {} if cluster == "image" else {CLUSTER: cluster}


@dataclass(frozen=True)
class RunSettings:
    """The settings that the number depends on: not device, batch size, workers and ranks."""

    family: str
    patch_nums: list[int | None]
    image_size: int | None
    rule: str
    preprocess: str
    temperature: list[TemperatureChoice]  # the headline first
    seed: int  # of the order of the images and of the jackknife groups
    images_fingerprint: str  # hash of the paths and sizes of the images
    images: int  # that were listed
    precision: Precision
    checkpoint_sha256: str | None  # None without a checkpoint or a codebook file
    groups: int = GROUPS  # of the jackknife
    block: int = BLOCK  # images in a block
    # What else of the tokenizer changes the number; in files beside the other keys.
    identity: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        tokenizer: Tokenizer,
        temperatures: Sequence[TemperatureChoice] | None,
        identity: Mapping[str, Any],
        *,
        seed: int,
        images_fingerprint: str,
        images: int,
        precision: Precision,
    ) -> "RunSettings":
        """Describe a run of a tokenizer.

        Without temperatures it has the tokenizer's default; `identity` is `checkpoint_sha256`, the path
        of the tokens, what the groups keep together, and what else of the tokenizer changes the number
        but is not in its spec.

        Raises:
            EntropyCliError: temperatures are to be fitted to what has no distances, or tokens drawn
                that change nothing.
        """
        spec = tokenizer.spec
        chosen = list(temperatures or spec.temperatures)
        if "auto" in chosen and not tokenizer.codebook(0).has_distances:
            raise EntropyCliError(
                "temperature auto: is defined for squared distances to codes, not for the rule "
                f"{spec.rule}. Give a number."
            )
        others = dict(identity)
        if others.get(PATH) == "drawn":
            _check_drawn(tokenizer)
        else:
            others.pop(PATH, None)  # left out, as in states of earlier versions
        return cls(
            family=spec.family,
            patch_nums=spec.patch_nums,
            image_size=spec.image_size,
            rule=spec.rule,
            preprocess=spec.preprocess,
            temperature=chosen,
            seed=seed,
            images_fingerprint=images_fingerprint,
            images=images,
            precision=precision,
            checkpoint_sha256=others.pop("checkpoint_sha256"),
            identity=others,
        )

    @property
    def frozen_temperatures(self) -> list[list[float]] | None:
        """The values at every scale, for each temperature, that were taken from another run's result."""
        return self.identity.get(FROZEN)

    @property
    def path(self) -> TokenPath:
        """The tokens that are counted, and subtracted before the next scale."""
        return self.identity.get(PATH, "hard")

    @property
    def draw_seed(self) -> int | None:
        """The seed of drawn tokens; None takes the nearest codes."""
        return self.seed if self.path == "drawn" else None

    @property
    def has_losses(self) -> bool:
        """Whether the run adds up a generator's losses."""
        return MODEL in self.identity

    @property
    def has_entropies(self) -> bool:
        """Whether the run assigns latents to codes; one that is given tokens does not."""
        return self.identity.get(TOKENS) is None

    @property
    def has_soft_losses(self) -> bool:
        """Whether the run adds up a generator's losses against soft labels."""
        return bool(self.identity.get(SOFT_LABELS))

    @property
    def cluster(self) -> Cluster:
        """What the groups of images keep together."""
        return "folder" if self.identity.get(CLUSTER) == "folder" else "image"

    def to_json(self) -> dict[str, Any]:
        """Return one flat dictionary of JSON values."""
        values = asdict(self)
        return {**values.pop("identity"), **values}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "RunSettings":
        """Rebuild the settings from what `to_json` gave.

        Raises:
            KeyError, ValueError: a setting is missing, or of another type.
        """
        own = {of.name: content[of.name] for of in fields(cls) if of.name != "identity"}
        others = {key: value for key, value in content.items() if key not in own}
        if own["temperature"] == "auto":  # as earlier versions wrote it
            own["temperature"] = ["auto"]
        return from_json({**own, "identity": others}, cls)

    def fingerprint(self) -> str:
        """Return a hash of all settings, 64 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()


def _check_drawn(tokenizer: Tokenizer) -> None:
    """Raise EntropyCliError unless drawn tokens of a scale change the latents of the next."""
    spec = tokenizer.spec
    if not spec.is_residual:
        why = "each scale has latents of its own" if len(spec.scales) > 1 else "there is one scale only"
        raise EntropyCliError(
            f"--path drawn: {why}, so no latent depends on which codes are drawn, and the assignment "
            "entropy is the same on both paths. Leave it out."
        )
    if isinstance(tokenizer.codebook(0), Grid):
        raise EntropyCliError("--path drawn: is for codes, not for bits or levels. Leave it out.")

"""Check whether a generator was trained on the tokens of a tokenizer."""

from entropy_cli.core.errors import CheckpointError
from entropy_cli.generators.base import GeneratorSpec
from entropy_cli.tokenizers.base import TokenizerSpec


def check_fits(generator: GeneratorSpec, tokenizer: TokenizerSpec) -> None:
    """Check that a generator predicts just the tokens that a tokenizer makes at its image size.

    Raises:
        CheckpointError: they differ in codes, dimensions of latents, scales, image size, or rule.
    """
    sizes = sorted({scale.vocabulary.size for scale in tokenizer.scales})
    if sizes != [generator.vocab_size]:
        has = " and ".join(f"{size:,}" for size in sizes)
        raise _other(f"predicts {generator.vocab_size:,} codes, but the tokenizer has {has}")
    if generator.latent_dim not in (None, tokenizer.latent_dim):
        raise _other(
            f"takes latents of {generator.latent_dim} dimensions, but the tokenizer's have "
            f"{tokenizer.latent_dim}"
        )
    if generator.image_size not in (None, tokenizer.image_size):
        raise _other(
            f"was trained on images of {generator.image_size} pixels, but the tokenizer takes "
            f"{tokenizer.image_size}: give --image-size {generator.image_size}"
        )
    if list(generator.patch_nums) != tokenizer.patch_nums:
        theirs = [str(scale.patch_num or scale.name) for scale in tokenizer.scales]
        own = ",".join(map(str, generator.patch_nums))
        option = f"--patch-nums {own} or another --image-size"
        side, single = (
            tokenizer.patch_nums[0],
            len(tokenizer.patch_nums) == len(generator.patch_nums) == 1,
        )
        if single and side and tokenizer.image_size:
            option = f"--image-size {tokenizer.image_size // side * generator.patch_nums[0]}"
        raise _other(
            f"predicts scales {own}, but the tokenizer makes {','.join(theirs)} at "
            f"{tokenizer.image_size} pixels: give {option}"
        )
    if generator.rule not in (None, tokenizer.rule):
        raise _other(
            f"was trained on tokens by the rule {generator.rule}, but the tokenizer's are by "
            f"{tokenizer.rule}: give --rule {generator.rule}"
        )


def _other(words: str) -> CheckpointError:
    return CheckpointError(
        f"--model and --ckpt don't fit: the generator {words}. Give the tokenizer that it was trained "
        "with."
    )

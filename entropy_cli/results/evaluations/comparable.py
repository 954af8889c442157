"""Which evaluations can be compared: those of models of the same tokens."""

from entropy_cli.results.evaluation import Evaluation


def not_comparable(reference: Evaluation, other: Evaluation) -> str:
    """Return why the cross-entropies of two evaluations can't be compared, or ""."""
    both = (reference.estimate, other.estimate)
    tokenizers = [one.tokenizer for one in both]
    same = len({(t.family, t.vocab_size, tuple(t.patch_nums)) for t in tokenizers}) == 1
    hashes = {t.checkpoint_sha256 for t in tokenizers if t.checkpoint_sha256 is not None}
    if not same or len(hashes) > 1:
        return "another tokenizer"
    if len({(one.settings.image_size, one.settings.preprocess) for one in both}) > 1:
        return "another image size or crop"
    if len({one.settings.path for one in both}) > 1:
        return "drawn and nearest codes"
    given = [one.labels.source == "none" for one in (reference, other)]
    return "one is not told the class" if given[0] != given[1] else ""

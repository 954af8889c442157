"""The losses by plain arithmetic on Python's floats, a token at a time."""

import math


def plain_losses(logits, labels=None, targets=None, ignore=-100, smoothing=None):
    """Means over the counted tokens of rows of tokens, and the standard error over the rows."""
    found, rows = [], []
    for b, row in enumerate(logits):
        of_row = [
            plain_token(
                z,
                None if labels is None else labels[b][t],
                None if targets is None else targets[b][t],
                smoothing,
            )
            for t, z in enumerate(row)
            if labels is None or labels[b][t] != ignore
        ]
        found += of_row
        if of_row:
            rows.append(of_row)
    mean = {name: math.fsum(t[name] for t in found) / len(found) for name in found[0]}
    n = len(rows)
    if n > 1:
        center = mean["cross_entropy"]
        squares = [math.fsum(t["cross_entropy"] - center for t in row) ** 2 for row in rows]
        mean["standard_error"] = math.sqrt(n / (n - 1) * math.fsum(squares)) / len(found)
    return {**mean, "tokens": len(found), "perplexity": math.exp(mean["cross_entropy"])}


def plain_token(z, label, q, smoothing):
    """Of one token."""
    top = max(z)
    log_sum = top + math.log(math.fsum(math.exp(x - top) for x in z))
    log_p = [x - log_sum for x in z]
    of = {"predictive_entropy": -math.fsum(math.exp(x) * x for x in log_p if x > -math.inf)}
    if label is not None:
        order = sorted(range(len(z)), key=lambda v: (-z[v], v))
        of["label_cross_entropy"] = of["cross_entropy"] = -log_p[label]
        of["accuracy_top1"] = float(order[0] == label)
        of["accuracy_top5"] = float(label in order[:5])
    if q is not None:
        of["target_entropy"] = -math.fsum(x * math.log(x) for x in q if x > 0)
        of["kl"] = math.fsum(x * (math.log(x) - y) for x, y in zip(q, log_p, strict=True) if x > 0)
        of["cross_entropy"] = -math.fsum(x * y for x, y in zip(q, log_p, strict=True) if x > 0)
    if smoothing is not None:
        V = len(z)
        soft = [smoothing / V + (1 - smoothing) * (v == label) for v in range(V)]
        of["smoothed_cross_entropy"] = -math.fsum(
            x * y for x, y in zip(soft, log_p, strict=True) if x > 0
        )
        of["smoothed_floor"] = -math.fsum(x * math.log(x) for x in soft if x > 0)
    return of

"""A backward pass in Python: torch's engine asks CUDA for its streams, and there is none to ask."""

from collections import Counter

import torch


def backward(self, gradient=None):
    """Add to the leaves' `grad`, in the place of Tensor.backward."""
    with torch.no_grad():
        gradient = torch.ones_like(self) if gradient is None else gradient
        _run(self.grad_fn, gradient, _uses(self.grad_fn))


def _uses(root):
    """Return how many nodes hand a gradient to each node."""
    uses, stack, seen = Counter(), [root], {root}
    while stack:
        for node, _ in stack.pop().next_functions:
            if node is None:
                continue
            uses[node] += 1
            if node not in seen:
                seen.add(node)
                stack.append(node)
    return uses


def _run(root, gradient, uses):
    """Call each node when every gradient of its outputs has come."""
    gradients, ready = {root: {0: gradient}}, [root]
    while ready:
        node = ready.pop()
        came = gradients.pop(node, {})
        if hasattr(node, "variable"):
            _accumulate(node.variable, came.get(0))
            continue
        given = _call(node, [came.get(i) for i in range(len(node._input_metadata))])
        for (after, i), part in zip(node.next_functions, given, strict=True):
            if after is None:
                continue
            if part is not None:
                part = _as_input(part, after._input_metadata[i])
                mine = gradients.setdefault(after, {})
                mine[i] = mine[i] + part if i in mine else part
            uses[after] -= 1
            if not uses[after]:
                ready.append(after)


def _call(node, gradients):
    if all(gradient is None for gradient in gradients):
        return [None] * len(node.next_functions)
    call = getattr(node, "apply", node)  # of a function in Python, or of torch's own
    given = call(*gradients)
    # One in Python answers for arguments that are no tensors too; here they come last.
    return given[: len(node.next_functions)] if isinstance(given, tuple) else (given,)


def _as_input(gradient, metadata):
    """Sum what was broadcast, and cast: nodes leave both to the engine."""
    return gradient.sum_to_size(tuple(metadata.shape)).to(metadata.dtype)


def _accumulate(leaf, gradient):
    if gradient is not None:
        leaf.grad = gradient.detach() if leaf.grad is None else leaf.grad + gradient

"""Sets of latents are told apart by everything that changes what is read of them."""

from dataclasses import replace

import torch

from entropy_cli.images.latents import ScaleLatents, find_latents


class InMemory:
    """An array that is in no file."""

    def __init__(self, z_MX):
        self.z_MX, self.shape, self.dtype = z_MX, tuple(z_MX.shape), z_MX.dtype

    def read(self, *index):
        return self.z_MX[index]


def latents(z_MX, *, channels_first=False):
    scale = ScaleLatents("z", InMemory(z_MX), channels_first)
    return find_latents("z.npy", [scale], seed=0, limit=None, progress=lambda _: None)


def test_the_fingerprint_changes_with_values_shape_type_and_orientation():
    z_MlC = torch.arange(36.0).view(4, 3, 3)
    others = (z_MlC + 1, z_MlC.view(4, 1, 9), z_MlC.view(torch.int32))
    sets = [latents(z_MlC), latents(z_MlC, channels_first=True), *map(latents, others)]
    assert len({one.fingerprint() for one in sets}) == len(sets)
    assert latents(z_MlC.clone()).fingerprint() == sets[0].fingerprint()


def test_the_fingerprint_of_a_large_tensor_is_of_rows_all_over_it(monkeypatch):
    monkeypatch.setattr("entropy_cli.images.latents.WHOLE_BYTES", 0)
    monkeypatch.setattr("entropy_cli.images.latents.SAMPLED", 3)
    z_MlC = torch.zeros(9, 1, 3)
    unchanged = latents(z_MlC).fingerprint()
    for row in (0, 4, 8):
        changed = z_MlC.clone()
        changed[row] = 1
        assert latents(changed).fingerprint() != unchanged


def test_the_fingerprint_is_of_the_scales_in_their_order():
    one, other = latents(torch.zeros(2, 1, 3)), latents(torch.ones(2, 1, 3))
    both = [replace(one, scales=[*a.scales, *b.scales]) for a, b in ((one, other), (other, one))]
    assert both[0].fingerprint() != both[1].fingerprint()

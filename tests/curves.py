"""Noise of training curves, and how often a detector fires on it."""

import itertools
import math

import numpy as np


def autoregressive(runs, points, phi, sd, seed=0):
    """AR(1) noise of a given standard deviation, (runs, points)."""
    noise_nR = np.random.default_rng(seed).standard_normal((points, runs))
    for before, row in itertools.pairwise(noise_nR):
        row *= (1 - phi**2) ** 0.5
        row += phi * before
    return sd * noise_nR.T


def fires(detector, y_n):
    found = detector(y_n)
    return bool(found) if isinstance(found, list) else found.fires


def rate(detector, curves):
    return np.mean([fires(detector, curve) for curve in curves])


def at_most(stated, runs):
    """The stated rate and three standard errors of one measured in so many runs."""
    return stated + 3 * math.sqrt(stated * (1 - stated) / runs)

"""Triton kernels for channels_last tensors: group norm with SiLU, and a sum with a bias.

Nothing imports this file but `fused`, where Triton is there. A program holds a tile of some pixels of
one image, all channels of each, and walks over a few tiles, one after the other.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE_ELEMENTS = 4096
TILES = tl.constexpr(16)  # that a program walks over
PARTS = tl.constexpr(64)  # moments that are read at once
WARPS = 8


@triton.jit(do_not_specialize=["pixels"])
def channel_moments(
    x_ptr,
    mean_ptr,
    square_ptr,
    pixels,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Store the mean of each channel over a part of the pixels, and the sum of squares around it.

    The running mean and sum of each element of the tile are Welford's, after the part's first pixel is
    subtracted: so digits hold far from zero, and whichever that pixel is.
    """
    part, image = tl.program_id(0), tl.program_id(1)
    first = part * ROWS * TILES
    x_ptr += (image.to(tl.int64) * pixels + first) * CHANNELS
    row_R, column_W = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    inside_W = column_W < CHANNELS
    start_W = tl.load(x_ptr + column_W, mask=inside_W, other=0.0).to(tl.float32)
    mean_RW = tl.zeros((ROWS, WIDTH), tl.float32)
    square_RW = tl.zeros((ROWS, WIDTH), tl.float32)
    for tile in range(TILES):
        pixel_R = tile * ROWS + row_R
        inside_RW = (first + pixel_R < pixels)[:, None] & inside_W[None, :]
        at_RW = pixel_R[:, None] * CHANNELS + column_W[None, :]
        x_RW = tl.load(x_ptr + at_RW, mask=inside_RW, other=0.0).to(tl.float32) - start_W[None, :]
        delta_RW = tl.where(inside_RW, x_RW - mean_RW, 0.0)
        mean_RW += delta_RW * (1.0 / (tile + 1.0))
        square_RW += delta_RW * (x_RW - mean_RW)
    # A row has as many pixels as tiles that reach into the image there.
    left = tl.minimum(pixels - first, ROWS * TILES)
    count_R1 = ((left - row_R + ROWS - 1) // ROWS).to(tl.float32)[:, None]
    mean_W = tl.sum(mean_RW * count_R1, 0) / left.to(tl.float32)
    apart_RW = mean_RW - mean_W[None, :]
    square_W = tl.sum(square_RW + count_R1 * apart_RW * apart_RW, 0)
    at_W = (image.to(tl.int64) * tl.num_programs(0) + part) * CHANNELS + column_W
    tl.store(mean_ptr + at_W, mean_W + start_W, mask=inside_W)
    tl.store(square_ptr + at_W, square_W, mask=inside_W)


@triton.jit(do_not_specialize=["pixels", "parts"])
def channel_factors(
    mean_ptr,
    square_ptr,
    weight_ptr,
    bias_ptr,
    offset_ptr,
    scale_ptr,
    shift_ptr,
    pixels,
    parts,
    EPS: tl.constexpr,
    CHANNELS: tl.constexpr,
    GROUP: tl.constexpr,
    GROUP_WIDTH: tl.constexpr,
    PART: tl.constexpr,
):
    """Store the factor and the summand of each channel of one group of one image, from all parts."""
    group, image = tl.program_id(0), tl.program_id(1)
    of_group_K = tl.arange(0, GROUP_WIDTH)
    inside_K, channel_K = of_group_K < GROUP, group * GROUP + of_group_K
    offset_K = tl.zeros((GROUP_WIDTH,), tl.float64)
    if offset_ptr is not None:
        offset_K += tl.load(offset_ptr + channel_K, mask=inside_K, other=0.0).to(tl.float64)
    begin = image.to(tl.int64) * parts
    numbers = pixels.to(tl.float64) * GROUP
    sum_PK = tl.zeros((PARTS, GROUP_WIDTH), tl.float64)
    for first in range(0, parts, PARTS):
        part_P = first + tl.arange(0, PARTS)
        inside_PK = (part_P < parts)[:, None] & inside_K[None, :]
        at_PK = (begin + part_P)[:, None] * CHANNELS + channel_K[None, :]
        count_P1 = tl.minimum(pixels - part_P * PART, PART).to(tl.float64)[:, None]
        mean_PK = tl.load(mean_ptr + at_PK, mask=inside_PK, other=0.0).to(tl.float64) + offset_K[None, :]
        sum_PK += tl.where(inside_PK, count_P1 * mean_PK, 0.0)
    mean = tl.sum(tl.sum(sum_PK, 1), 0) / numbers
    sum_PK = tl.zeros((PARTS, GROUP_WIDTH), tl.float64)
    for first in range(0, parts, PARTS):
        part_P = first + tl.arange(0, PARTS)
        inside_PK = (part_P < parts)[:, None] & inside_K[None, :]
        at_PK = (begin + part_P)[:, None] * CHANNELS + channel_K[None, :]
        count_P1 = tl.minimum(pixels - part_P * PART, PART).to(tl.float64)[:, None]
        mean_PK = tl.load(mean_ptr + at_PK, mask=inside_PK, other=0.0).to(tl.float64) + offset_K[None, :]
        square_PK = tl.load(square_ptr + at_PK, mask=inside_PK, other=0.0).to(tl.float64)
        apart_PK = mean_PK - mean
        sum_PK += tl.where(inside_PK, square_PK + count_P1 * apart_PK * apart_PK, 0.0)
    variance = tl.sum(tl.sum(sum_PK, 1), 0) / numbers
    weight_K = tl.load(weight_ptr + channel_K, mask=inside_K, other=0.0).to(tl.float64)
    bias_K = tl.load(bias_ptr + channel_K, mask=inside_K, other=0.0).to(tl.float64)
    scale_K = (weight_K / tl.sqrt(variance + EPS)).to(tl.float32)
    # With the rounded factor, so that a large mean times it cancels.
    shift_K = bias_K + (offset_K - mean) * scale_K.to(tl.float64)
    at_K = image * CHANNELS + channel_K
    tl.store(scale_ptr + at_K, scale_K, mask=inside_K)
    tl.store(shift_ptr + at_K, shift_K.to(tl.float32), mask=inside_K)


@triton.jit(do_not_specialize=["pixels"])
def scaled(
    x_ptr,
    out_ptr,
    scale_ptr,
    shift_ptr,
    pixels,
    SILU: tl.constexpr,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Store x scale + shift, then SiLU of it, in float32 until it is stored."""
    part, image = tl.program_id(0), tl.program_id(1)
    first = part * ROWS * TILES
    start = (image.to(tl.int64) * pixels + first) * CHANNELS
    row_R, column_W = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    inside_W = column_W < CHANNELS
    scale_W = tl.load(scale_ptr + image * CHANNELS + column_W, mask=inside_W, other=0.0)
    shift_W = tl.load(shift_ptr + image * CHANNELS + column_W, mask=inside_W, other=0.0)
    for tile in range(TILES):
        pixel_R = tile * ROWS + row_R
        inside_RW = (first + pixel_R < pixels)[:, None] & inside_W[None, :]
        at_RW = start + pixel_R[:, None] * CHANNELS + column_W[None, :]
        x_RW = tl.load(x_ptr + at_RW, mask=inside_RW, other=0.0).to(tl.float32)
        y_RW = x_RW * scale_W[None, :] + shift_W[None, :]
        if SILU:
            y_RW = y_RW / (1.0 + tl.exp(-y_RW))
        tl.store(out_ptr + at_RW, y_RW.to(out_ptr.dtype.element_ty), mask=inside_RW)


@triton.jit(do_not_specialize=["pixels"])
def summed(
    h_ptr,
    x_ptr,
    bias_ptr,
    pixels,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Add x, and a bias to each channel, to h in place; pixels are those of all images."""
    first = tl.program_id(0).to(tl.int64) * ROWS * TILES
    row_R, column_W = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    inside_W = column_W < CHANNELS
    bias_W = tl.load(bias_ptr + column_W, mask=inside_W, other=0.0).to(tl.float32)
    for tile in range(TILES):
        pixel_R = first + tile * ROWS + row_R
        inside_RW = (pixel_R < pixels)[:, None] & inside_W[None, :]
        at_RW = pixel_R[:, None] * CHANNELS + column_W[None, :]
        h_RW = tl.load(h_ptr + at_RW, mask=inside_RW, other=0.0).to(tl.float32)
        x_RW = tl.load(x_ptr + at_RW, mask=inside_RW, other=0.0).to(tl.float32)
        sum_RW = h_RW + x_RW + bias_W[None, :]
        tl.store(h_ptr + at_RW, sum_RW.to(h_ptr.dtype.element_ty), mask=inside_RW)


def group_norm(
    x_BChw: Tensor,
    weight_C: Tensor,
    bias_C: Tensor,
    offset_C: Tensor | None,
    groups: int,
    eps: float,
    silu: bool,
) -> Tensor:
    """Normalise x + offset over groups of channels, statistics in float32 and float64.

    Args:
        x_BChw: activations.
        weight_C: factors after the norm.
        bias_C: summands after the norm.
        offset_C: added to every pixel first; None for nothing.
        groups: number of groups.
        eps: added to the variance.
        silu: whether SiLU follows.
    """
    x_BChw = x_BChw.contiguous(memory_format=torch.channels_last)
    B, C, h, w = x_BChw.shape
    pixels, tile = h * w, _tile(C)
    part = tile["ROWS"] * TILES.value
    parts = triton.cdiv(pixels, part)
    mean_BpC, square_BpC = x_BChw.new_empty((2, B, parts, C), dtype=torch.float32)
    scale_BC, shift_BC = x_BChw.new_empty((2, B, C), dtype=torch.float32)
    out_BChw = torch.empty_like(x_BChw)
    with torch.cuda.device_of(x_BChw):
        channel_moments[parts, B](
            x_BChw, mean_BpC, square_BpC, pixels, CHANNELS=C, **tile, num_warps=WARPS
        )
        channel_factors[groups, B](
            *(mean_BpC, square_BpC, weight_C, bias_C, offset_C, scale_BC, shift_BC),
            *(pixels, parts),
            EPS=eps,
            CHANNELS=C,
            GROUP=C // groups,
            GROUP_WIDTH=triton.next_power_of_2(C // groups),
            PART=part,
        )
        scaled[parts, B](
            *(x_BChw, out_BChw, scale_BC, shift_BC, pixels),
            SILU=silu,
            CHANNELS=C,
            **tile,
            num_warps=WARPS,
        )
    return out_BChw


def add_(h_BChw: Tensor, x_BChw: Tensor, bias_C: Tensor) -> None:
    """Add x, and a bias to each channel, to h in place; both contiguous in channels_last."""
    B, C, h, w = h_BChw.shape
    tile, pixels = _tile(C), B * h * w
    programs = triton.cdiv(pixels, tile["ROWS"] * TILES.value)
    with torch.cuda.device_of(h_BChw):
        summed[(programs,)](h_BChw, x_BChw, bias_C, pixels, CHANNELS=C, **tile, num_warps=WARPS)


def _tile(channels: int) -> dict[str, int]:
    """Return the size of a tile: all channels of some pixels."""
    width = triton.next_power_of_2(channels)
    return {"ROWS": max(1, TILE_ELEMENTS // width), "WIDTH": width}

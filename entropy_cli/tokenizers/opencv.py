"""OpenCV's bilinear resizing of 8-bit images, bit by bit, without OpenCV."""

import numpy as np

WEIGHT_ONE = 2048  # fixed point of 11 bits


def resize_window(
    img_HWC: np.ndarray, size: tuple[int, int], corner: tuple[int, int], window: int
) -> np.ndarray:
    """Return a square window of what cv2.resize(img_HWC, size) with INTER_LINEAR gives.

    There is no antialiasing: at any size each pixel is a mean of the four around its centre. OpenCV has
    a special case where both sides are halved, but its mean of 2 x 2 is the same number. At the border
    the two axes differ: a column gets all the weight at once, a row gets it in two rounded parts.

    Args:
        img_HWC: uint8.
        size: width and height of the whole resized image.
        corner: left and top of the window in it.
        window: side of the window.

    Returns:
        uint8 of shape (window, window, C).

    Source:
        opencv/opencv modules/imgproc/src/resize.cpp: HResizeLinear, VResizeLinear and the tables of
        offsets and weights that hal::resize makes for them.
    """
    (height, width), (new_width, new_height), (left, top) = img_HWC.shape[:2], size, corner
    first_column, fraction = _positions(width, new_width, left, window)
    outside = (first_column < 0) | (first_column >= width - 1)
    columns, column_weights = _taps(first_column, np.where(outside, np.float32(0), fraction), width)
    rows, row_weights = _taps(*_positions(height, new_height, top, window), height)
    total_HWC = np.full((window, window, img_HWC.shape[2]), 2, np.int32)
    for row, row_weight in zip(rows, row_weights, strict=True):
        picked = img_HWC[row]
        mean_HWC = picked[:, columns[0]] * column_weights[0, :, None]
        mean_HWC += picked[:, columns[1]] * column_weights[1, :, None]
        mean_HWC >>= 4
        mean_HWC *= row_weight[:, None, None]
        mean_HWC >>= 16
        total_HWC += mean_HWC
    return (total_HWC >> 2).astype(np.uint8)


def _positions(old: int, new: int, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the old pixel before the centre of each new one, and the distance to it."""
    step = 1 / (new / old)
    at = ((np.arange(start, start + count) + 0.5) * step - 0.5).astype(np.float32)
    first = np.floor(at)
    return first.astype(np.int64), at - first


def _taps(first: np.ndarray, fraction: np.ndarray, old: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the two old pixels of each new one, within the image, and their weights, (2, N) both."""
    weights = np.rint(np.stack([1 - fraction, fraction]) * WEIGHT_ONE).astype(np.int32)
    return np.clip(np.stack([first, first + 1]), 0, old - 1), weights

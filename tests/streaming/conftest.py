"""A small run of the loop, for the tests of what surrounds it."""

import contextlib

import pytest
import torch

from entropy_cli.core.signals import Signals
from entropy_cli.images.decode import CroppedImages
from entropy_cli.images.image_set import GROUPS, find_images
from entropy_cli.images.loader import open_loader, read_batches
from entropy_cli.images.plan import check_points, plan_segments
from entropy_cli.streaming.batch_processor import BatchProcessor
from entropy_cli.streaming.loop import Loop
from entropy_cli.streaming.ranks import Ranks
from entropy_cli.streaming.reader import prefetch
from entropy_cli.tokenizers.base import sums_layout
from entropy_cli.tokenizers.precision import matmul_precision
from entropy_cli.tokenizers.registry import load_tokenizer

CPU = torch.device("cpu")


@pytest.fixture
def run(images, checkpoint):
    """Run some blocks into a progress; block 4 holds six images, the others sixteen."""
    found, tokenizer = find_images(images), load_tokenizer(checkpoint).tokenizer

    @matmul_precision(tf32=False)
    def run(progress, blocks, batch_size, device=CPU, target=None, advance=lambda _: None, **hooks):
        processor = BatchProcessor(tokenizer.to(device, "fp32"), device, batch_size, advance)
        done = progress.blocks_done.tolist()
        points = check_points(len(blocks), early_stop=target is not None)
        segments = plan_segments(70, batch_size, list(blocks), done, points)
        plans = [plan for segment in segments for plan in segment.plans]
        read = read_batches(
            open_loader(CroppedImages(found, tokenizer.spec.crop.apply), plans, workers=0)
        )
        if progress.tally is None:
            progress.temperatures = [[1.0] for _ in tokenizer.spec.scales]
            progress.allocate(sums_layout(tokenizer.spec.scales, GROUPS, 1), device)
        with contextlib.closing(prefetch(read, device)) as batches:
            encoded = processor.encode(batches)
            Loop(processor, progress, Ranks(), Signals(), target=target, **hooks).run(encoded, segments)
        return progress

    return run

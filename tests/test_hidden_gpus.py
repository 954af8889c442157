"""Tests see a GPU only if asked for those that need one."""

import os
import subprocess
import sys

import pytest

from tests.conftest import keeps_gpus


@pytest.mark.parametrize(
    ("expression", "kept"),
    [("", False), ("gpu", True), ("gpu and not slow", True), ("not gpu", False), ("slow", False)],
)
def test_only_a_selection_of_gpu_tests_keeps_gpus(expression, kept):
    assert keeps_gpus(expression) == kept


def test_a_process_that_a_test_starts_sees_none(request):
    if keeps_gpus(request.config.option.markexpr):
        pytest.skip("-m gpu")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    counts = [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"]
    assert subprocess.run(counts, capture_output=True, text=True).stdout.strip() == "0"

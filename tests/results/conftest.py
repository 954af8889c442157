"""What the tests of results share: a result of `estimate` with a ladder, and evaluations on it."""

import pytest

from entropy_cli.cli import main
from entropy_cli.results.schema import read_result


@pytest.fixture(scope="session")
def estimated(tmp_path_factory, images, checkpoint):
    """A result of `estimate` at two temperatures, with a ladder."""
    path = tmp_path_factory.mktemp("estimated") / "result.json"
    argv = ["estimate", "--data", images, "--ckpt", checkpoint, "-o", path, "--temperature", "1,0.5"]
    assert main([str(part) for part in [*argv, "--workers", "0", "--ladder"]]) == 0
    return read_result(path)

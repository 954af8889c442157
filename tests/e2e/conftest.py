"""What tests of trainings share."""

import pytest

from entropy_cli.images.synthetic import write_image_folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """30 pictures, of which a training holds out 3."""
    root = tmp_path_factory.mktemp("folder")
    write_image_folder(root, images=30, size=22, seed=1)
    return root

"""A fixed number of damaged files of every format; `python -m tests.fuzz` runs more."""

import pytest

from tests.fuzz.fuzz import Fuzzer

SEED, CASES = 1, 100


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory):
    return Fuzzer(tmp_path_factory.mktemp("fuzz"))


def test_damaged_files_are_read_or_refused_in_one_line_and_in_time(fuzzer):
    assert not [fault for number in range(CASES) if (fault := fuzzer.fault(SEED, number))]


def test_sound_files_are_read(fuzzer):
    fuzzer.check_samples()

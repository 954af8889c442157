"""Run the fuzz for as long as wanted: `python -m tests.fuzz --seed 7 --minutes 60`."""

import argparse
import atexit
import faulthandler
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.fuzz import MOST_WAITED_S, Fuzzer

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--seed", type=int, required=True)
parser.add_argument("--minutes", type=float, default=1)
parser.add_argument(
    "--case", type=int, help="run one case; its files remain in the folder that is named"
)
parser.add_argument("--first", type=int, default=0, help="number of the first case")
options = parser.parse_args()

folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
if options.case is None:
    atexit.register(shutil.rmtree, folder)
os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
fuzzer = Fuzzer(folder)
if options.case is not None:
    sys.exit(fuzzer.fault(options.seed, options.case) or f"no fault; the files are in {fuzzer.case}")
fuzzer.check_samples()
number, faults, end = options.first, 0, time.monotonic() + 60 * options.minutes
while time.monotonic() < end:
    sys.stderr.write(f"\rcase {number}")  # the last line, if the process is killed
    faulthandler.dump_traceback_later(2 * MOST_WAITED_S, exit=True)
    if fault := fuzzer.fault(options.seed, number):
        faults += 1
        sys.stdout.write(f"{fault}\n\n")
        sys.stdout.flush()
    number += 1
sys.stdout.write(f"{number - options.first} cases of seed {options.seed}: {faults} faults\n")

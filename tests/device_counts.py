"""What a pretended device counts, and where in the program it was caused."""

import sys
from collections import Counter

OWN = ("/device_counts.py", "/pretended_gpu.py", "/python_backward.py")


class Counts:
    """What the host did to the device: waits and copies, each by (what, line of the program)."""

    def __init__(self):
        self.waits = Counter()  # copies that are waited for among them
        self.event_waits = Counter()  # for one piece of the work, not for all of it
        self.copies = Counter()  # between host and device, in both directions

    def of(self, counter, place):
        """Return how often in a part of the program, given by the start of its path."""
        return sum(number for (_, line), number in counter.items() if line.startswith(place))


def program_line():
    """Return the file below entropy_cli/ and the line that called torch, or that of a test."""
    frame = sys._getframe(1)
    for part in ("/entropy_cli/", "/tests/"):
        at = frame
        while at is not None:
            name = at.f_code.co_filename
            if part in name and not name.endswith(OWN):
                return f"{name.rpartition(part)[2]}:{at.f_lineno}"
            at = at.f_back
    return "elsewhere"

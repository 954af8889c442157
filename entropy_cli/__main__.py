"""The installed program, and `python -m entropy_cli`."""

import signal
import sys

# Ctrl-C while modules are imported ends the program without a traceback; `main` has its own handlers.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from entropy_cli.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())

"""`python -m entropy_cli`."""

import sys

from entropy_cli.cli import main

sys.exit(main())

"""`python -m entropy_cli`."""

import sys

from entropy_cli.cli.app import main

sys.exit(main())

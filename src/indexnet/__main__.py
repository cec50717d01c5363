"""``python -m indexnet`` is the console command."""

import sys

from indexnet.cli import main

if __name__ == "__main__":
    sys.exit(main())

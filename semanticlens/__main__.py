"""``python -m semanticlens`` is the command ``semanticlens``."""

from __future__ import annotations

import sys

from semanticlens.cli import main

if __name__ == "__main__":
    sys.exit(main())

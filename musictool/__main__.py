"""`python -m musictool`, the same as `mtk`."""

from __future__ import annotations

import sys

from musictool.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m tl_flows` is the `tl` command."""

from __future__ import annotations

import sys

from tl_flows.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""``python -m hloc_dpqed.hloc_bridge``."""

import sys

from .command_line import main

sys.exit(main())

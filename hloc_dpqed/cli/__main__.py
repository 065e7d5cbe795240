"""``python -m hloc_dpqed.cli``."""

import sys

from . import main

sys.exit(main())

"""Small visual-localization maps for hloc: select points, quantize descriptors, localize."""

import os

# torch and faiss each bring an OpenMP pool whose idle threads spin; where both are loaded they
# take the cores from one another. Read when the libraries load, hence here; a user's own setting
# stays. Everything else about threads is in threads.py.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

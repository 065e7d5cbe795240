"""Golden decodes of a codec that is added to the package; `tests/test_shipped.py` reads them.

    python tests/data/make_shipped.py NAME

adds ``NAME`` (such as ``superpoint-1``) and changes no other. A codec that was released stays.
"""

import json
import sys
from pathlib import Path

import numpy as np

from hloc_dpqed.codecs.file import codec_hash
from hloc_dpqed.codecs.shipped import shipped_codec

PATH = Path(__file__).parent / "shipped_codecs.json"


def golden(name: str) -> dict:
    codec = shipped_codec(name)
    codes = (np.arange(40).reshape(5, 8) * 37 + 11).astype(np.uint8)
    decoded = {
        size: (codec.head(size).decode(codes[:, :size])[:, :4] * 1e6).round().astype(int).tolist()
        for size in (1, 2, 3, 4, 5, 6, 7, 8)
    }
    return {"hash": codec_hash(codec), "decoded": decoded}


if __name__ == "__main__":
    known = json.loads(PATH.read_text()) if PATH.is_file() else {}
    for name in sys.argv[1:]:
        if name in known:
            sys.exit(f"{name} is there already: a codec is never changed, give it a new number")
        known[name] = golden(name)
    PATH.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")

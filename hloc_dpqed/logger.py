"""The package's logger: standard error, so that standard output stays free for results."""

import logging
import sys

logger = logging.getLogger("hloc_dpqed")


class _StandardError(logging.Handler):
    """Writes to what ``sys.stderr`` is at that time: it may be replaced and closed meanwhile."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


_handler = _StandardError()
_handler.setFormatter(
    logging.Formatter("[%(asctime)s %(name)s %(levelname)s] %(message)s", "%Y/%m/%d %H:%M:%S")
)


def configure_logging() -> None:
    """Print the package's messages as hloc prints its own; the command line calls this."""
    logger.addHandler(_handler)  # once, however often it is called
    logger.setLevel(logging.INFO)
    logger.propagate = False

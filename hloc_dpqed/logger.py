"""The package's logger: standard error, so that standard output stays free for results."""

import logging

logger = logging.getLogger("hloc_dpqed")


def configure_logging() -> None:
    """Print the package's messages as hloc prints its own; the command line calls this once."""
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(
            logging.Formatter(
                "[%(asctime)s %(name)s %(levelname)s] %(message)s", "%Y/%m/%d %H:%M:%S"
            )
        )
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False

"""The one exception that means 'the input or the arguments are wrong'."""


class InputError(ValueError):
    """A user's mistake, told in one line: which file, what is wrong, what was expected.

    The command line prints the message and exits with code 2.
    """


PACKAGES = {
    "torch": "torch",
    "faiss": "faiss-cpu",
    "scipy": "scipy",
}  # what to install for a module


def told_missing(error: ModuleNotFoundError) -> str | None:
    """One line on a module that is missing, None where it is not one of ``PACKAGES``."""
    name = (error.name or "").split(".")[0]
    if name not in PACKAGES:
        return None
    return f"this needs {name}, which is not installed: pip install {PACKAGES[name]}"

"""The one exception that means 'the input or the arguments are wrong'."""


class InputError(ValueError):
    """A user's mistake, told in one line: which file, what is wrong, what was expected.

    The command line prints the message and exits with code 2.
    """

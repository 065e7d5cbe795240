"""The console script: parses arguments, calls the stage's ``main``, prints."""

import argparse
import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from .. import __version__
from ..errors import InputError
from . import arguments, commands

# What each command is for; ``commands`` and ``arguments`` have the rest by its name.
_COMMANDS = {
    "map": "photos to a COLMAP model and a feature file",
    "compress": "compress an hloc map to one small file",
    "fit-codec": "fit one codec on several maps, for them to share",
    "append": "add what an extended model has to a map file",
    "merge": "join two map files of one frame and codec",
    "prune": "a smaller map file from a map file alone",
    "remove": "remove images from a map file",
    "localize": "localize queries with a map file",
    "evaluate": "pose errors and recall of a result file",
    "info": "what is in a map file, and what each part costs",
    "export": "write a map as a COLMAP model with features, for hloc or COLMAP",
    "sweep": "accuracy against bytes over codecs, code sizes and selectors",
    "demo": "map a rendered scene, compress it, localize in it",
    "report": "one HTML file: bytes, accuracy, points, cameras, matches",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, exit code 2."""
        self.exit(2, f"{self.prog}: error: {_one_line(message)} (see --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; imports nothing heavy, so that ``--help`` is instant."""
    common = _Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = _Parser(prog="hloc-dpqed", description="Small visual-localization maps for hloc")
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)

    for name, text in _COMMANDS.items():
        sub = subparsers.add_parser(name, help=text, description=text, parents=[common])
        stage = name.replace("-", "_")
        sub.set_defaults(run=getattr(commands, stage))
        getattr(arguments, f"add_{stage}")(sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0 on success; 2, and one line on standard error, on a user's mistake; 1, and one line, on
        an error that is none; 130 when interrupted; 141, and no line, when whoever read the output
        has left (as in ``| head -1``), as other programs do.
    """
    from ..logger import configure_logging

    parser = build_parser()
    args = vars(parser.parse_args(argv))
    configure_logging()
    debug, run, name = args.pop("debug"), args.pop("run"), args.pop("command")
    try:
        run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return 141
    except KeyboardInterrupt:
        print(f"hloc-dpqed {name}: interrupted, no output was written", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, InputError):
            print(f"hloc-dpqed {name}: error: {_one_line(str(error))}", file=sys.stderr)
            return 2
        if isinstance(error, ModuleNotFoundError):
            from ..errors import told_missing

            if lacking := told_missing(error):
                print(f"hloc-dpqed {name}: error: {lacking}", file=sys.stderr)
                return 2
        if isinstance(error, OSError):
            _drop_output()
        told = _one_line(f"{type(error).__name__}: {error}")
        hint = "" if debug else " (pass --debug for the traceback)"
        print(f"hloc-dpqed {name}: unexpected error: {told}{hint}", file=sys.stderr)
        return 1
    return 0


def _drop_output() -> None:
    """What is left of standard output goes nowhere: Python would tell of it again at its end."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _one_line(message: str) -> str:
    """File names may hold line breaks; a message is still one line."""
    return " ".join(message.split("\n"))

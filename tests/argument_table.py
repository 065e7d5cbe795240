"""Which command has which argument, from the parser: the table of docs/cli.md.

    python tests/argument_table.py

prints it.
"""

import argparse
from pathlib import Path

from hloc_dpqed.cli import build_parser

DOCUMENT = Path(__file__).parents[1] / "docs" / "cli.md"
START, END = "<!-- arguments -->\n", "<!-- end of arguments -->\n"
SKIPPED = ("-h", "--debug")  # every command has them


def commands() -> dict[str, argparse.ArgumentParser]:
    """The parser of each command."""
    (group,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(group.choices)


def arguments_of() -> dict[str, dict[str, bool]]:
    """Of each command its arguments, and whether they are required."""
    return {
        name: {
            (action.option_strings or [action.dest.upper()])[0]: action.required
            for action in parser._actions
            if (action.option_strings or [""])[0] not in SKIPPED
        }
        for name, parser in commands().items()
    }


def table() -> str:
    """All arguments, in the parser's order, as Markdown."""
    own = arguments_of()
    names = list(dict.fromkeys(argument for each in own.values() for argument in each))
    lines = [f"| argument | {' | '.join(own)} |", "| --- |" + " --- |" * len(own)]
    for argument in names:
        cells = ["" if argument not in o else "!" if o[argument] else "x" for o in own.values()]
        lines.append(f"| `{argument}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def documented() -> str:
    """The table as docs/cli.md has it."""
    text = DOCUMENT.read_text(encoding="utf-8")
    return text.partition(START)[2].partition(END)[0]


if __name__ == "__main__":
    print(table(), end="")

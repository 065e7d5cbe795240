"""The report's HTML: the page, tables, and pictures of matches as SVG."""

import html
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Nothing may be loaded from anywhere: the page is complete, and a browser that finds otherwise
# reports it. plotly.js compiles its shaders' callers at run time, hence 'unsafe-eval'.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1200px; margin: 2em auto;
  padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.25em; margin-top: 2em; border-bottom: 1px solid #ddd; }
h3 { font-size: 1em; margin: 1.5em 0 .3em; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; margin: 1em 0; }
th, td { padding: .25em .7em; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
pre { background: #f5f5f5; padding: 1em; font-size: 12px; white-space: pre-wrap;
  overflow-wrap: anywhere; }
figure { margin: .5em 0 1em; } figcaption { font-size: 13px; color: #555; }
figure svg { width: 100%; height: auto; display: block; }
.correct { color: #14852b; } .wrong { color: #d02020; }
.matches path { fill: none; }
.matches .correct { stroke: #2ad24f; stroke-width: 1.5; opacity: .75; }
.matches .wrong { stroke: #ff3b30; stroke-width: 1; opacity: .45; }
.definitions { position: absolute; width: 0; height: 0; }
"""


class Picture(NamedTuple):
    """An image to show: the id of its definition in the page, and a data URI."""

    id: str
    uri: str


def escape(text: object) -> str:
    """Text for HTML, attributes included."""
    return html.escape(str(text), quote=True)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table; cells are text."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def document(title: str, sections: Sequence[tuple[str, str]], script: str) -> str:
    """The whole page.

    Args:
        title: of the page.
        sections: headings, and HTML.
        script: JavaScript that the sections need.
    """
    body = "\n".join(
        f"<section><h2>{escape(heading)}</h2>\n{content}\n</section>"
        for heading, content in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
<script>{script}</script>
</head>
<body>
<h1>{escape(title)}</h1>
{body}
</body>
</html>
"""


def picture_definitions(pictures: dict[str, Picture]) -> str:
    """Each picture once, for the SVGs that show it. One unit wide and high: they scale it."""
    images = "".join(
        f'<image id="{escape(p.id)}" width="1" height="1" preserveAspectRatio="none" '
        f'href="{escape(p.uri)}"/>'
        for p in pictures.values()
    )
    return f'<svg class="definitions" aria-hidden="true"><defs>{images}</defs></svg>'


def match_picture(
    query: tuple[str, int, int],
    database: tuple[str, int, int],
    left: np.ndarray,
    right: np.ndarray,
    correct: np.ndarray,
    caption: str,
    pictures: dict[str, Picture],
) -> str:
    """Two images side by side with a line for each match.

    Args:
        query, database: name, width and height in pixels of the left and the right image.
        left, right: (n, 2) pixels in the images, with the top left corner at 0.
        correct: (n,) bool.
        caption: text below.
        pictures: by name; a grey field stands for an absent one.
    """
    gap = 10
    height = query[2]
    scale = height / database[2]
    offset = query[1] + gap
    width = offset + database[1] * scale
    placed = np.column_stack([np.asarray(right, float) * scale + [offset, 0]])
    lines = [
        _path("wrong", left[~correct], placed[~correct]),
        _path("correct", left[correct], placed[correct]),
    ]
    fields = [
        _image(query[0], 0, query[1], height, pictures),
        _image(database[0], offset, database[1] * scale, height, pictures),
    ]
    return (
        f'<figure class="matches"><svg viewBox="0 0 {width:.1f} {height}" role="img" '
        f'aria-label="{escape(caption)}">{"".join(fields)}{"".join(lines)}</svg>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _image(name: str, x: float, width: float, height: float, pictures: dict[str, Picture]) -> str:
    if name not in pictures:
        return f'<rect x="{x:.1f}" y="0" width="{width:.1f}" height="{height:.1f}" fill="#ddd"/>'
    transform = f"translate({x:.1f} 0) scale({width:.3f} {height:.3f})"
    return f'<use href="#{escape(pictures[name].id)}" transform="{transform}"/>'


def _path(kind: str, left: np.ndarray, right: np.ndarray) -> str:
    steps = "".join(
        f"M{a:.1f} {b:.1f}L{c:.1f} {d:.1f}"
        for (a, b), (c, d) in zip(np.asarray(left).tolist(), right.tolist(), strict=True)
    )
    return f'<path class="{kind}" d="{steps}"/>' if steps else ""

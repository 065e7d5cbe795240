"""The layers of docs/architecture.md, held against the imports in the code."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "hloc_dpqed"


def layers() -> list[list[str]]:
    """Rooms from the highest line to the lowest."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    block = text.split("```layers\n")[1].split("```")[0]
    return [line.split() for line in block.splitlines()]


def modules() -> dict[str, Path]:
    """Files of the package by dotted name below it; '' is the package itself."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of the package that a module imports anywhere in its code."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
            found |= {n.removeprefix(f"{PACKAGE}.") for n in names if n.startswith(PACKAGE)}
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
                target = ".".join([*base, *([node.module] if node.module else [])])
            elif (node.module or "").split(".")[0] == PACKAGE:
                target = (node.module or "").removeprefix(PACKAGE).removeprefix(".")
            else:
                continue
            for alias in node.names:
                full = f"{target}.{alias.name}".removeprefix(".")
                found.add(full if full in known else target)
    return {m for m in found if m in known} - {name}


def room(name: str) -> str:
    return name.split(".")[0]


GRAPH = {name: imports(name, path, modules()) for name, path in modules().items()}


def test_every_room_has_a_layer():
    listed = [name for line in layers() for name in line]
    assert len(listed) == len(set(listed))
    assert set(listed) == {room(name) for name in GRAPH} - {""}


@pytest.mark.parametrize("name", [name for name in GRAPH if name])
def test_imports_run_down(name):
    level = {r: -k for k, line in enumerate(layers()) for r in line}
    own = room(name)
    wrong = [
        other
        for other in GRAPH[name]
        if other and room(other) != own and level[room(other)] >= level[own]
    ]
    assert not wrong, f"{name} imports {wrong}, which are not below it"


def test_there_is_no_circle():
    """Among modules, lazy imports and those of a room's own included."""
    left = {name: set(others) - {""} for name, others in GRAPH.items() if name}
    while True:
        free = {name for name, others in left.items() if not others}
        if not free:
            break
        left = {name: others - free for name, others in left.items() if name not in free}
    assert not left, f"circles among {sorted(left)}"


def names_hloc(path: Path) -> bool:
    """Whether a module imports hloc, by a statement or by ``import_module``."""
    named = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            named += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            named.append(node.module or "")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            named.append(ast.unparse(node.args[0]).strip("f'\""))
    return any(name.split(".")[0] == "hloc" for name in named)


def test_only_two_places_import_hloc():
    users = {room(name) for name, path in modules().items() if names_hloc(path)}
    assert names_hloc(modules()["matching.hloc_models"])
    assert users <= {"matching", "hloc_bridge"}


def test_data_reads_no_file():
    for name in GRAPH:
        if room(name) in ("scene", "maps"):
            assert "io" not in {room(other) for other in GRAPH[name]}, name

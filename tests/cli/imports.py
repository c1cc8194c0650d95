"""What a module of chaku imports, read from its syntax: nothing is imported, so what is missing here is seen too."""

from __future__ import annotations

import ast
import functools
import re
import sys
from importlib import metadata
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"


def _name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {_name(path): path for path in (SOURCE / "chaku").rglob("*.py")}


class _Imports(ast.NodeVisitor):
    """Import statements that run when the module is imported; with `inside`, those of its functions too."""

    def __init__(self, *, inside: bool) -> None:
        self.inside = inside
        self.found: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" not in ast.dump(node.test):
            self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        if self.inside:
            self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Import(self, node: ast.Import) -> None:
        self.found |= {alias.name for alias in node.names}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            self.found.add(full if full in FILES else str(node.module))


@functools.cache
def imports_of(module: str, *, inside: bool = False) -> frozenset[str]:
    visitor = _Imports(inside=inside)
    visitor.visit(ast.parse(FILES[module].read_text()))
    return frozenset(visitor.found)


def imports_of_node(node: ast.AST) -> set[str]:
    visitor = _Imports(inside=True)
    visitor.visit(node)
    return visitor.found


@functools.cache
def third_party(module: str) -> frozenset[str]:
    """Packages of others that are loaded when `module` is imported, itself and all of chaku that it imports."""
    seen: set[str] = set()
    found: set[str] = set()
    waiting = [module]
    while waiting:
        parts = waiting.pop().split(".")
        if parts[0] != "chaku":
            found |= {parts[0]} - set(sys.stdlib_module_names)
            continue
        for length in range(1, len(parts) + 1):
            name = ".".join(parts[:length])
            if name in FILES and name not in seen:
                seen.add(name)
                waiting += imports_of(name)
    return frozenset(found)


@functools.cache
def installed_by(extra: str | None) -> frozenset[str]:
    """Importable names that pip brings with chaku[extra] (None: the base install), dependencies of dependencies too."""
    by_package: dict[str, set[str]] = {}
    for name, packages in metadata.packages_distributions().items():
        for package in packages:
            by_package.setdefault(_normal(package), set()).add(name)
    waiting = [_normal(name) for name, wanted in _requirements() if wanted in (None, extra)]
    seen: set[str] = set()
    while waiting:
        if (package := waiting.pop()) in seen:
            continue
        seen.add(package)
        try:
            needed = metadata.requires(package) or []
        except metadata.PackageNotFoundError:  # for another platform
            continue
        waiting += [_normal(re.split(r"[^A-Za-z0-9._-]", text)[0]) for text in needed if "extra ==" not in text]
    return frozenset(name for package in seen for name in by_package.get(package, {package.replace("-", "_")}))


def _normal(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def _requirements() -> list[tuple[str, str | None]]:
    """Packages that pyproject.toml names, each with its extra."""
    import tomllib

    project = tomllib.loads((SOURCE.parent / "pyproject.toml").read_text())["project"]
    rows = [(text, None) for text in project["dependencies"]]
    rows += [(text, extra) for extra, texts in project["optional-dependencies"].items() for text in texts]
    return [(re.split(r"[^A-Za-z0-9._-]", text)[0], extra) for text, extra in rows]

"""Public functions and classes have docstrings. `make check` runs this."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("city", "city_assets", "sensors_and_schedules", "resources", "simulators")
LEAST = 0.9  # the share that must have one


class Definition(NamedTuple):
    """A public function, method or class: where it stands (`file:line name`), and whether it has a docstring."""

    place: str
    has_docstring: bool


def public_definitions(source: str, file: str) -> Iterator[Definition]:
    """Yields the public definitions of a module. Those inside a function or a private class are not public."""

    def walk(body: list[ast.stmt], prefix: str) -> Iterator[Definition]:
        for node in body:
            if isinstance(node, ast.If | ast.Try | ast.With):
                yield from walk([n for n in ast.iter_child_nodes(node) if isinstance(n, ast.stmt)], prefix)
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            name = prefix + node.name
            yield Definition(f"{file}:{node.lineno} {name}", bool((ast.get_docstring(node) or "").strip()))
            if isinstance(node, ast.ClassDef):
                yield from walk(node.body, f"{name}.")

    return walk(ast.parse(source).body, "")


@pytest.mark.parametrize("package", PACKAGES)
def test_public_functions_and_classes_have_docstrings(package: str) -> None:
    definitions = [
        definition
        for path in sorted((ROOT / package).rglob("*.py"))
        for definition in public_definitions(path.read_text(), str(path.relative_to(ROOT)))
    ]
    missing = [definition.place for definition in definitions if not definition.has_docstring]
    assert definitions, package
    assert 1 - len(missing) / len(definitions) >= LEAST, "no docstring:\n" + "\n".join(missing)


def test_what_lacks_a_docstring_is_seen() -> None:
    source = '''
class Public:
    """Has one."""

    def method(self): ...

    def _private(self): ...

    @property
    def documented(self):
        """Has one."""

class _Private:
    def method(self): ...

if True:
    async def conditional(): ...

def outer():
    """ """
    def inner(): ...
'''
    assert list(public_definitions(source, "m.py")) == [
        ("m.py:2 Public", True),
        ("m.py:5 Public.method", False),
        ("m.py:10 Public.documented", True),
        ("m.py:17 conditional", False),
        ("m.py:19 outer", False),
    ]

"""What code a result depends on: a hash of a function and of every definition of this package that it uses.

The sources are read, not imported. Comments, docstrings, the texts of `raise` and of `help=` do not count.
"""

import ast
import hashlib
from collections.abc import Iterator, Set
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent
REST = ""
"""The name of all statements of a module that define nothing."""


class Definition(NamedTuple):
    """A top-level function, class or constant of a module."""

    module: str
    name: str


class Module(NamedTuple):
    """A module of the package."""

    definitions: dict[str, list[ast.stmt]]
    imports: dict[str, str]
    """A name that it imports from the package, to what the name is: `tseg.model.pooling.POOLINGS`."""
    registered: frozenset[str]
    """Definitions that a decorator of the module registers, such as the poolings."""


def digest(entry: str, *, without: Set[str] = frozenset(), chosen: Set[str] = frozenset()) -> str:
    """A hash of the function `entry`, such as `tseg.training.run.train_run`, and of all that it uses, at any depth.

    `without` names modules and definitions that do not count, nor does what only they use. `chosen` names definitions
    that a decorator registers: no other one of their modules counts. Raises ValueError if a name is unknown.
    """
    return _digest(entry, frozenset(without), frozenset(chosen))


@cache  # hundreds of jobs of a workflow run the same code
def _digest(entry: str, without: frozenset[str], chosen: frozenset[str]) -> str:
    texts = (f"{each.module} {_text(each)}" for each in sorted(used(entry, without=without, chosen=chosen)))
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def used(entry: str, *, without: Set[str] = frozenset(), chosen: Set[str] = frozenset()) -> set[Definition]:
    """The definitions that `digest` hashes."""
    left_out, kept = {_find(name) for name in without}, {_find(name) for name in chosen}
    registries = {each.module for each in kept}
    found: set[Definition] = set()
    waiting = [_find(entry)]
    while waiting:
        each = waiting.pop()
        is_other = each.module in registries and each.name in _read(each.module).registered and each not in kept
        if each in found or each in left_out or Definition(each.module, REST) in left_out or is_other:
            continue
        found.add(each)
        waiting += _uses(each)
        waiting += [Definition(each.module, name) for name in (REST, *_read(each.module).registered)]
    return found


@cache
def _find(name: str) -> Definition:
    """The definition with a dotted name; for a module, its `REST`."""
    if _path(name).is_file():
        return Definition(name, REST)
    module, _, member = name.rpartition(".")
    if _path(module).is_file():
        if member in _read(module).definitions:
            return Definition(module, member)
        if member in _read(module).imports:
            return _find(_read(module).imports[member])
    raise ValueError(f"the package has no {name}")


def _path(module: str) -> Path:
    path = ROOT.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _read(module: str) -> Module:
    tree = _Essence().visit(ast.parse(_path(module).read_text(encoding="utf-8")))
    definitions: dict[str, list[ast.stmt]] = {REST: []}
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom):
            # A name of another library is a definition; one of the package leads to its own.
            for alias in () if _is_own(statement) else statement.names:
                one = ast.ImportFrom(statement.module, [alias], statement.level)
                definitions[alias.asname or alias.name] = [one]
        else:
            for name in _defined(statement) or [REST]:
                definitions.setdefault(name, []).append(statement)
    functions = {statement.name for statement in tree.body if isinstance(statement, ast.FunctionDef)}
    registered = [
        statement.name
        for statement in tree.body
        if isinstance(statement, ast.FunctionDef) and functions & {*map(_called, statement.decorator_list)}
    ]
    return Module(definitions, dict(_imported(tree)), frozenset(registered))


class _Essence(ast.NodeTransformer):
    """Removes what changes no result: docstrings, the texts of errors and of help."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            node.exc = node.exc.func
        return self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        self.generic_visit(node)
        # Versions of Python quote f-strings differently.
        return ast.Tuple([ast.Constant("f-string"), *node.values], ast.Load())

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.AST:
        self.generic_visit(node)
        return ast.Tuple([node.value, ast.Constant(node.conversion), node.format_spec or ast.Constant("")], ast.Load())

    def visit_keyword(self, node: ast.keyword) -> ast.AST | None:
        return None if node.arg == "help" else self.generic_visit(node)


def _defined(statement: ast.stmt) -> list[str]:
    """The names that a statement defines."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        return [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
    if isinstance(statement, ast.Import) and not statement.names[0].name.startswith(f"{ROOT.name}."):
        return [alias.asname or alias.name.partition(".")[0] for alias in statement.names]
    return []


def _is_own(statement: ast.ImportFrom) -> bool:
    """Whether it imports from the package."""
    return (statement.module or "").partition(".")[0] == ROOT.name


def _called(decorator: ast.expr) -> str | None:
    """The name of a decorator, with or without arguments."""
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return called.id if isinstance(called, ast.Name) else None


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """The names that `from tseg... import ...` binds anywhere in `tree`, each with what it is."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and _is_own(node):
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


@cache
def _uses(definition: Definition) -> list[Definition]:
    """The definitions that a definition names."""
    module = _read(definition.module)
    found: list[Definition] = []
    for node in (node for each in module.definitions[definition.name] for node in ast.walk(each)):
        if isinstance(node, ast.Name) and node.id in module.definitions:
            found.append(Definition(definition.module, node.id))
        elif isinstance(node, ast.Name) and node.id in module.imports:
            found.append(_find(module.imports[node.id]))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = module.imports.get(node.value.id)
            if owner and _path(owner).is_file():
                found.append(_find(f"{owner}.{node.attr}"))
        elif isinstance(node, ast.Import):
            found += [_find(alias.name) for alias in node.names if alias.name.startswith(f"{ROOT.name}.")]
    return found


@cache
def _text(definition: Definition) -> str:
    return "\n".join(map(ast.unparse, _read(definition.module).definitions[definition.name]))

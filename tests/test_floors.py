"""The architecture, as a test: who may import whom, and how long anything may grow."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "kitae"
FLOORS = (  # a package may import itself and anything on a lower floor; packages on one floor are strangers
    {"core"},
    {"text", "tokenization"},
    {"tensor"},
    {"data", "models"},
    {"objectives", "tasks", "train", "report"},
    {"procedures"},
    {"stages"},
    {"chain"},
    {"cli"},
    {"__main__"},
)
FLOOR = {package: level for level, packages in enumerate(FLOORS) for package in packages}
NO_TORCH = {"torch", "transformers"}
FORBIDDEN = {
    "core": {"torch", "numpy", "datatrove", "transformers"},
    "text": NO_TORCH,
    "tokenization": NO_TORCH,
    "tensor": {"transformers", "datatrove"},
    "models": {"transformers", "datatrove"},
    "cli": {"torch", "numpy", "datatrove", "transformers"},
}
ANYWHERE = {"transformers", "pickle", "dill", "cloudpickle"}
FILES = sorted(SRC.rglob("*.py"))


def package_of(path: Path) -> str:
    return path.relative_to(SRC).with_suffix("").parts[0]


def module_of(path: Path) -> str:
    parts = path.relative_to(SRC.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_it_looks_at_the_right_folder() -> None:
    assert len(FILES) >= 60
    assert {package_of(path) for path in FILES} - {"__init__"} <= set(FLOOR)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_imports_go_downward(path: Path) -> None:
    here = package_of(path)
    for name, line in imports(ast.parse(path.read_text())):
        root, *rest = name.split(".")
        place = f"{path.relative_to(SRC)}:{line}"
        if root != "kitae":
            assert root not in FORBIDDEN.get(here, set()) | ANYWHERE, f"{place}: {here} may not import {root}"
        elif here != "__init__" and rest and rest[0] != "__version__":
            assert rest[0] == here or FLOOR[rest[0]] < FLOOR[here], f"{place}: {here} may not import {rest[0]}"
            if here == "stages":
                assert rest[:1] != ["stages"], f"{place}: stages meet only through artifacts"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_no_own_import_inside_a_function_and_no_reexport(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for function in functions(tree):
        for name, line in imports(function):
            assert not name.startswith("kitae"), f"{path.relative_to(SRC)}:{line}: import of our own inside a function"
    if path.name == "__init__.py" and path.parent != SRC:
        assert [type(node) for node in tree.body] == [ast.Expr], f"{path.relative_to(SRC)}: only a docstring stands in a package file"


def test_modules_have_no_cycle() -> None:
    modules = {module_of(path): path for path in FILES}
    graph = {
        module: {
            target
            for name, _ in imports(ast.parse(path.read_text()))
            for target in (name, name.rpartition(".")[0])
            if target in modules and target != module and modules[target].name != "__init__.py"
        }
        for module, path in modules.items()
    }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"import cycle: {' -> '.join([*trail, module])}"
        if module not in done:
            for target in graph[module]:
                visit(target, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_sizes(path: Path) -> None:
    source = path.read_text()
    place = path.relative_to(SRC)
    assert source.count("\n") <= 400, f"{place} is over 400 lines"
    assert ast.get_docstring(ast.parse(source)), f"{place} has no docstring"
    for node in functions(ast.parse(source)):
        assert node.end_lineno is not None
        assert node.end_lineno - node.lineno < 60, f"{place}:{node.lineno} {node.name} is over 60 lines"
        arguments = [a.arg for a in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs] if a.arg not in ("self", "cls")]
        assert len(arguments) <= 8, f"{place}:{node.lineno} {node.name} has {len(arguments)} parameters"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_public_names_are_documented_and_typed(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path.relative_to(SRC)}:{node.lineno} {node.name} has no docstring"
    for function in functions(tree):
        assert function.returns is not None or function.name == "__init__", f"{path.relative_to(SRC)}:{function.lineno} has no return type"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_nothing_prints_but_the_command_line(path: Path) -> None:
    if package_of(path) != "cli":
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id in ("print", "eval", "exec")]

"""The rules of CONTRIBUTING.md that a machine can hold: maps, the voice, names, the length of files."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"tav": ROOT, "registry": ROOT, "services": ROOT, "tav_client": ROOT / "clients" / "python"}
CODE = ("tav", "registry", "services", "clients", "tests", "benchmarks", "tools", "examples")

BELOW = {"tav": set(), "tav_client": set(), "registry": {"tav", "tav_client"}, "services": {"registry", "tav", "tav_client"}}
"""Which packages of ours each may import."""

MOST_LINES = 400
MAP_LINE = re.compile(r"^([a-z_0-9]+/?) {2,}\S", re.MULTILINE)
ARGS = re.compile(r"^Args:\n((?: {4}.*\n|\n)+)", re.MULTILINE)
ARG = re.compile(r"^ {4}([\w*, ]+): (.*)$", re.MULTILINE)
LOGGERS, LEVELS = {"log", "logger", "logging"}, {"debug", "info", "warning", "error", "exception", "critical"}

OTHER_FORM = re.compile(r"(?<!s)s$|ed$|ing$")
"""The end of a verb that is not in the imperative: returns, returned, returning."""
VERBS = {"embed", "exceed", "feed", "need", "proceed", "seed", "shed", "speed", "bring", "ping"}
"""Verbs whose imperative ends so."""
NOT_VERBS = set(
    re.findall(
        r"\w+",
        """a an the this that these those its their it they one two six eight all any both each every some no none
        nothing nobody what which who whose how why when where whether while if as at by for from in into of
        off on out over since so then to under until up with within without about after before between not
        only like other same such true false yes also never more most less least first last next new old
        likewise entry stable standard pearson coverage width height backward size progress phase text body""",
    )
)
"""First words that show a docstring to be a noun phrase."""
CAPITALISED = {"Ray", "Python", "Docker", "Kubernetes", "Gaussian", "True", "False", "None"}
"""Words that are upper-case wherever they stand."""

PARTICIPLES = {"made", "found", "asked", "kept", "told", "given", "wanted", "following"}
"""Not a name by themselves: the noun is missing."""
HOUSEHOLD = {"doorkeeper", "filling", "whoever", "likewise", "door"}
"""Not a part of a name."""
EXCUSED = {
    ("tav/eval/results.py", "made"),  # a field of the stored run.json
    ("tav/eval/local.py", "made"),
    ("services/evaluation/run.py", "made"),
}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def modules() -> Iterator[Path]:
    for package, parent in PACKAGES.items():
        yield from sorted((parent / package).rglob("*.py"))


def functions(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Public functions and methods of public classes, by their dotted names."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from functions(node, f"{inside}{node.name}.")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield f"{inside}{node.name}", node


def is_exempt(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Properties are nouns; a route's docstring is the description of a call in the HTTP interface's own documents."""
    decorators = [ast.unparse(node) for node in function.decorator_list]
    return any(re.search(r"property|computed_field|\.setter|^router\.\w+\(", decorator) for decorator in decorators)


def unfit_first_word(docstring: str) -> str | None:
    """The first word, unless it may be a verb in the imperative."""
    first = docstring.split(maxsplit=1)[0]
    word = first.rstrip(".,:;")
    if not re.fullmatch(r"[A-Z][a-z]+", word):
        return first
    lower = word.lower()
    return first if lower in NOT_VERBS or (OTHER_FORM.search(lower) and lower not in VERBS) else None


def begins_upper(text: str) -> bool:
    word = re.match(r"[A-Z][a-z]+\b", text)
    return word is not None and word[0] not in CAPITALISED


def log_messages(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The literal of each log call."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=owner, attr=level), args=[ast.Constant(value=str(text)), *_]):
                if level in LEVELS and ast.unparse(owner).rpartition(".")[2].strip("_").lower() in LOGGERS:
                    yield node.lineno, text


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """What a file names: variables, attributes, parameters, functions, classes."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name


def is_lazy_export(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name in ("__getattr__", "__dir__")


# -- the rules: each yields sentences that begin with a path


def maps() -> Iterator[str]:
    """A package's map names exactly its modules, and `_HOME` names modules that are there."""
    for package, parent in PACKAGES.items():
        for init in sorted((parent / package).rglob("__init__.py")):
            modules = {file.stem for file in init.parent.glob("*.py")} - {"__init__", "__main__"}
            packages = {f"{folder.name}/" for folder in init.parent.iterdir() if folder.is_dir() and any(folder.glob("*.py"))}
            mapped = set(MAP_LINE.findall(ast.get_docstring(parsed(init)) or ""))
            if missing := sorted((modules | packages) - mapped):
                yield f"{init.relative_to(ROOT)}: the map lacks {', '.join(missing)}"
            if extra := sorted(mapped - modules - packages):
                yield f"{init.relative_to(ROOT)}: the map names {', '.join(extra)}, which are not there"
            for node in parsed(init).body:
                match node:
                    case ast.Assign(targets=[ast.Name(id="_HOME")], value=ast.Dict(values=homes)):
                        for home in sorted({ast.literal_eval(home) for home in homes} - modules):
                            yield f"{init.relative_to(ROOT)}: _HOME names {home}, which is not there"


def packages_without_code() -> Iterator[str]:
    """A package's `__init__` holds no code but re-exports."""
    for path in modules():
        if path.name == "__init__.py":
            for node in parsed(path).body:
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not is_lazy_export(node):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}: {node.name} belongs into a module"


def imperative_docstrings() -> Iterator[str]:
    """Docstrings of functions and methods begin with a verb in the imperative."""
    for path in modules():
        for name, function in functions(parsed(path)):
            docstring = ast.get_docstring(function)
            if docstring and not is_exempt(function) and (word := unfit_first_word(docstring)):
                yield f"{path.relative_to(ROOT)}:{function.lineno}: {name}: begins with {word!r}, not with an imperative"


def arguments_in_lower_case() -> Iterator[str]:
    """Entries of `Args:` begin in lower case."""
    for path in modules():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                section = ARGS.search(f"{ast.get_docstring(node)}\n")
                for name, text in ARG.findall(section[1] if section else ""):
                    if begins_upper(text):
                        yield f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}: {name!r} of Args begins in upper case"


def log_lines_in_lower_case() -> Iterator[str]:
    """Log lines begin in lower case and end without a full stop."""
    for path in modules():
        for line, text in log_messages(parsed(path)):
            if begins_upper(text) or text.endswith("."):
                yield f"{path.relative_to(ROOT)}:{line}: log line {text!r} begins in upper case or ends with a full stop"


def names_of_the_field() -> Iterator[str]:
    """Names are nouns and verbs of the field."""
    for path in modules():
        place = str(path.relative_to(ROOT))
        for line, name in names(parsed(path)):
            words = {name.strip("_").lower()} & PARTICIPLES
            words |= {part.lower() for part in re.findall(r"[A-Z]?[a-z]+", name)} & HOUSEHOLD
            if words and (place, name) not in EXCUSED:
                yield f"{place}:{line}: {name!r}: {min(words)} is no word of the field"


def imports_go_one_way() -> Iterator[str]:
    """A package imports those below it, and of these no private modules."""
    for package, parent in PACKAGES.items():
        for path in sorted((parent / package).rglob("*.py")):
            for node in ast.walk(parsed(path)):
                match node:
                    case ast.ImportFrom(module=str(module), level=0, names=aliases):
                        imported = [f"{module}.{alias.name}" for alias in aliases]
                    case ast.Import(names=aliases):
                        imported = [alias.name for alias in aliases]
                    case _:
                        continue
                for name in imported:
                    top, *rest = name.split(".")
                    private = any(part.startswith("_") and not part.startswith("__") for part in rest)
                    if top != package and top in PACKAGES and (private or top not in BELOW[package]):
                        yield f"{path.relative_to(ROOT)}:{node.lineno}: imports {name}"


def short_files() -> Iterator[str]:
    """A file above 400 lines is two ideas."""
    for room in CODE:
        for path in sorted((ROOT / room).rglob("*.py")):
            if (lines := len(path.read_text().splitlines())) > MOST_LINES:
                yield f"{path.relative_to(ROOT)}: {lines} lines: split it"


RULES = (
    maps,
    packages_without_code,
    imperative_docstrings,
    arguments_in_lower_case,
    log_lines_in_lower_case,
    names_of_the_field,
    imports_go_one_way,
    short_files,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_code_keeps_the_rules_of_the_house(rule: Callable[[], Iterator[str]]) -> None:
    assert list(rule()) == [], rule.__doc__

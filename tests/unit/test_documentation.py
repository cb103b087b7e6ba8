"""The documentation speaks of what is there: files, names, commands, flags, routes, error texts, links."""

import argparse
import ast
import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from homeserver import cli

ROOT = Path(__file__).resolve().parents[2]
MANUAL = ROOT / "docs" / "manual"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PACKAGES = ("homeserver", "federation", "storage", "config")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))

CODE_SPAN = re.compile(r"`([^`\n]+)`")
OUR_PATH = re.compile(r"(?:(?:homeserver|federation|storage|config|tests|docs|sytest)/|\.ci/)[\w./-]*\w/?")
PLACE = re.compile(r"(?P<path>[\w/]+\.py):(?P<name>\w+(?:\.\w+)?)")
LINK = re.compile(r"\]\((?!https?://)(?P<target>[^)\s#]*)(?:#(?P<anchor>[^)\s]+))?\)")


def spans(page: Path) -> Iterator[str]:
    """What stands between backticks."""
    yield from CODE_SPAN.findall(page.read_text("utf-8"))


# -- files and names ---------------------------------------------------------------------------------------------


@each_page
def test_paths_that_are_named_exist(page: Path) -> None:
    named = {span.partition(":")[0] for span in spans(page) if OUR_PATH.fullmatch(span.partition(":")[0])}
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


@cache
def names_in(path: Path) -> frozenset[str]:
    """Classes, functions and methods of a module: ``Class``, ``function``, ``Class.method``."""
    names = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef):
            names.add(node.name)
            methods = (ast.FunctionDef, ast.AsyncFunctionDef)
            names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, methods)}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
    return frozenset(names)


@each_page
def test_classes_and_functions_that_are_named_exist(page: Path) -> None:
    places = [match for span in spans(page) if (match := PLACE.fullmatch(span))]
    assert [m[0] for m in places if m["name"] not in names_in(ROOT / m["path"])] == []


def test_flows_name_places() -> None:
    assert sum(PLACE.fullmatch(span) is not None for span in spans(ROOT / "docs/flows.md")) > 25


def anchors(page: Path) -> set[str]:
    """The anchors that headings make, as code hosts do it."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for match in LINK.finditer(page.read_text("utf-8")):
        target = (page.parent / match["target"]) if match["target"] else page
        if not target.exists() or (match["anchor"] and match["anchor"] not in anchors(target)):
            dead.append(match[0])
    assert dead == []


@pytest.mark.parametrize("folder", [ROOT / "docs" / "decisions", MANUAL], ids=lambda folder: folder.name)
def test_every_page_of_a_folder_is_in_its_index(folder: Path) -> None:
    """Add a line to the folder's README.md for a new page."""
    index = (folder / "README.md").read_text("utf-8")
    pages = sorted(page.name for page in folder.glob("*.md") if page.name != "README.md")
    assert [name for name in pages if f"({name})" not in index] == []


# -- the command line --------------------------------------------------------------------------------------------


@cache
def commands() -> dict[str, set[str]]:
    """The flags and positional arguments of every command, and of the commands below one (``peers retry``)."""
    return dict(commands_of(cli.parser(), ""))


def commands_of(parser: argparse.ArgumentParser, before: str) -> Iterator[tuple[str, set[str]]]:
    for below in parser._actions:
        if isinstance(below, argparse._SubParsersAction):
            for name, command in below.choices.items():
                own = [action for action in command._actions if not isinstance(action, argparse._SubParsersAction)]
                flags = {(action.option_strings or [action.dest])[-1] for action in own} - {"--help"}
                if command.get_default("command") is not None:
                    yield before + name, flags
                yield from commands_of(command, f"{before}{name} ")


def test_the_page_of_commands_has_every_command_with_its_flags() -> None:
    shared, own = (MANUAL / "commands.md").read_text("utf-8").split("| command |")
    common = set(re.findall(r"^\| `(--[\w-]+)`", shared, re.MULTILINE))
    told = {}
    for line in own.splitlines():
        if line.startswith("| `folkmoot "):
            command, _what, flags = line.strip("| ").split("|")
            name = command.strip(" `").removeprefix("folkmoot ")
            told[name] = {word for word in CODE_SPAN.findall(flags) if re.fullmatch(r"--[a-z-]+|[a-z]+", word)}
    for name in told.keys() - {"version"}:
        told[name] |= common
    assert told == commands()


CALL = re.compile(r"(?:ExecStart=)?(?:/[\w./-]*/)?folkmoot (?P<arguments>[a-z].*)")


def calls(page: Path) -> Iterator[list[str]]:
    """The arguments of ``folkmoot …`` in code spans and on lines of code blocks."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    for text in [*spans(page), *(line for block in blocks for line in block.splitlines())]:
        if match := CALL.fullmatch(text.partition(" #")[0].strip()):
            yield match["arguments"].split()


@each_page
def test_commands_in_texts_exist(page: Path) -> None:
    wrong = []
    for command, *rest in calls(page):
        if rest and f"{command} {rest[0]}" in commands():
            command = f"{command} {rest.pop(0)}"
        known = commands().get(command, {"no such command"})
        flags = {word.partition("=")[0] for word in rest if word.startswith("--")}
        if not flags <= known or command not in commands():
            wrong.append((command, flags - known))
    assert wrong == []


# -- what is built -----------------------------------------------------------------------------------------------


def routes_module() -> ModuleType:
    """The contract tests' list of declared routes."""
    spec = importlib.util.spec_from_file_location("declared_routes", ROOT / "tests" / "contract" / "routes.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def operations_for_servers() -> set[str]:
    """The paths of all ``Operation(method, path, …)`` in the endpoints for other servers."""
    paths = set()
    for file in (ROOT / "federation" / "inbound").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Operation" and len(node.args) > 1:
                paths |= {one.value for one in ast.walk(node.args[1]) if isinstance(one, ast.Constant)}
    return paths


def test_the_status_table_tells_the_truth() -> None:
    """Paths of areas that are not built have no route; all others have one. Change the row when that changes."""
    built = {route.path for route in routes_module().declared_routes()} | operations_for_servers()
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    rows = [line.split("|")[1:4] for line in lines if line.startswith("| ") and not line.startswith("| area")]
    assert len(rows) > 10
    wrong = []
    for area, state, operations in rows:
        for path in CODE_SPAN.findall(operations):
            if (path in built) == state.strip().startswith("not built"):
                wrong.append(f"{area.strip()}: {path} is {'built' if path in built else 'not built'}")
    assert wrong == []


# -- errors ------------------------------------------------------------------------------------------------------

TWISTED = {"Couldn't listen on"}


@cache
def texts_of_the_code() -> str:
    """Every string of the program, with the parts of one string joined and {} for what is filled in."""
    texts = [(ROOT / "Makefile").read_text("utf-8")]
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    texts.append("".join(p.value if isinstance(p, ast.Constant) else "{}" for p in node.values))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
    return "\n".join(texts)


def test_troubleshooting_quotes_errors_that_exist() -> None:
    page = (MANUAL / "troubleshooting.md").read_text("utf-8")
    quoted = set(re.findall(r"^\| (?:503 )?`([^`]+)` \|", page, re.MULTILINE))
    assert len(quoted) > 15
    assert [text for text in sorted(quoted - TWISTED) if text not in texts_of_the_code()] == []


# -- cases ---------------------------------------------------------------------------------------------------------

CASE = re.compile(r"[a-j]\d\d")


@cache
def tested_cases() -> dict[str, set[str]]:
    """Case → the files with tests that bear its number. The stories are all told by one file."""
    found: dict[str, set[str]] = {}
    for file in (ROOT / "tests").rglob("test_*.py"):
        for numbers in re.findall(r"def test_((?:[a-j]\d\d_)+)", file.read_text("utf-8")):
            for case in CASE.findall(numbers):
                found.setdefault(case.upper(), set()).add(str(file.relative_to(ROOT)))
    for story in (ROOT / "tests" / "vectors").glob("*.json"):
        if CASE.fullmatch(story.name[:3]):
            found.setdefault(story.name[:3].upper(), set()).add("tests/unit/rules/test_rules_stories.py")
    return found


def test_the_page_of_cases_tells_where_each_is_tested() -> None:
    """A new test of a case needs no new line here, a case without one has to say why."""
    lines = re.findall(r"^\| ([A-J]\d\d) \| [^|]+ \| ([^|]+) \|$", (ROOT / "docs/cases.md").read_text("utf-8"), re.MULTILINE)
    told = {case: set(CODE_SPAN.findall(where)) for case, where in lines}
    assert len(told) == len(lines) > 80
    assert sorted(tested_cases().keys() - told.keys()) == []
    wrong = {case: files - tested_cases().get(case, set()) for case, files in told.items()}
    assert {case: files for case, files in wrong.items() if files} == {}
    untested = {case: where for case, where in lines if not told[case]}
    reasons = ("not built: ", "not yet: ", "by hand")
    assert [case for case, where in untested.items() if not where.startswith(reasons) or case in tested_cases()] == []

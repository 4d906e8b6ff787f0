"""Imports run one way, and the core depends on nothing that a test could not set."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
LONGEST = 450
#: What a module of each layer may import of gatewayd, besides its own layer; "" is the package
#: itself, which holds the version. Imports for type checking count.
ALLOWED: dict[str, set[str]] = {
    "": set(),
    "errors": set(),
    "core": {"errors"},
    "storage": {"core", "errors"},
    "transport": {"core", "errors"},
    "device": {"core", "errors"},
    "api": {"transport", "core", "errors"},
    "composition": {
        "api",
        "storage",
        "transport",
        "device",
        "core",
        "configuration",
        "log",
        "errors",
        "",
    },
    "service": {"composition", "api", "transport", "core", "configuration", "errors"},
    "dev": {"service", "simulator", "client", "configuration", "core", "errors", ""},
    "tap": {"service", "dev", "configuration", "log", "transport", "core", "errors", ""},
    "configuration": {"errors"},
    "openapi": set(),
    "log": {"configuration"},
    "client": {""},
    "simulator": {"client"},
    "talk": {"client", "configuration", ""},
    "verbs": {"talk", "client"},
    "moving": {"service", "storage", "configuration", "core", "errors", ""},
    "__main__": {
        "talk",
        "simulator",
        "client",
        "moving",
        "verbs",
        "configuration",
        "log",
        "errors",
        "",
    },
}
#: Wire formats, SQL and sockets: nothing for the core.
OUTSIDE = {
    "autobahn", "klein", "psycopg2", "socket", "sqlite3", "ssl", "treq", "txpostgres",
    "twisted.application", "twisted.internet.endpoints", "twisted.internet.protocol",
    "twisted.protocols", "twisted.web",
}  # fmt: skip
#: May import the reactor; those of the second line within functions only.
WITH_REACTOR = {"service", "tap", "__main__"}
WITH_LAZY_REACTOR = {"talk", "dev", "client", "simulator"}
#: Time and chance, which the core is given.
AMBIENT = (
    "time.time", "time.time_ns", "time.monotonic", "time.localtime", "time.gmtime", "time.sleep",
    "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today",
    "datetime.date.today",
)  # fmt: skip


class Source(NamedTuple):
    """A module of the project."""

    path: str
    module: str
    tree: ast.Module
    lines: int

    @property
    def layer(self) -> str:
        return layer(self.module)


class Use(NamedTuple):
    """One thing that a module imports."""

    target: str
    line: int
    lazy: bool
    typing: bool


def parse(path: str, text: str) -> Source:
    """Return a module from its text."""
    parts = path.removesuffix(".py").removesuffix("/__init__").split("/")
    return Source(path, ".".join(parts), ast.parse(text, path), len(text.splitlines()))


def project() -> list[Source]:
    """Return every module of gatewayd and its plugin."""
    files = [*ROOT.glob("gatewayd/**/*.py"), *ROOT.glob("twisted/plugins/*.py")]
    return [parse(str(file.relative_to(ROOT)), file.read_text()) for file in sorted(files)]


def layer(module: str) -> str:
    """Return the layer of a module: the second part of its name."""
    return module.partition(".")[2].partition(".")[0]


def _walk(
    node: ast.AST, lazy: bool = False, typing: bool = False
) -> Iterator[tuple[ast.AST, bool, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for statement in child.body:
                yield statement, lazy, True
                yield from _walk(statement, lazy, True)
            for statement in child.orelse:
                yield statement, lazy, typing
                yield from _walk(statement, lazy, typing)
            continue
        yield child, lazy, typing
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _walk(child, lazy or inside, typing)


def uses(source: Source, known: set[str]) -> list[Use]:
    """Return what a module imports; a name that is a module counts as that module."""
    found: list[Use] = []
    for node, lazy, typing in _walk(source.tree):
        if isinstance(node, ast.Import):
            found += [Use(alias.name, node.lineno, lazy, typing) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = source.module.split(".")
                keep = len(package) - node.level + source.path.endswith("__init__.py")
                base = ".".join([*package[:keep], *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                ours = base.partition(".")[0] == "gatewayd"
                target = base if ours and full not in known else full
                found.append(Use(target, node.lineno, lazy, typing))
    return found


def ours(target: str) -> bool:
    """Whether that is a module of gatewayd."""
    return target.partition(".")[0] == "gatewayd"


def api_of(module: str) -> str:
    """Return which public API a module of ``gatewayd.api`` is a part of."""
    return (module.split(".") + [""] * 3)[2]


# The rules; each returns one line for every breach.


def outside_layer(sources: list[Source], layers: tuple[str, ...]) -> list[str]:
    """Check what modules of these layers import of gatewayd."""
    known = {source.module for source in sources}
    return [
        f"{source.path}:{use.line}: {source.layer} may import only "
        f"{sorted(ALLOWED[source.layer] | {source.layer})}, not {use.target}"
        for source in sources
        if source.layer in layers and ours(source.module)
        for use in uses(source, known)
        if ours(use.target) and layer(use.target) not in ALLOWED[source.layer] | {source.layer}
    ]


def across_apis(sources: list[Source]) -> list[str]:
    """Check that no API imports another API."""
    known = {source.module for source in sources}
    return [
        f"{source.path}:{use.line}: api.{api_of(source.module)} may not import another API, "
        f"{use.target}"
        for source in sources
        if source.layer == "api"
        for use in uses(source, known)
        if use.target.startswith("gatewayd.api.")
        and api_of(use.target) not in ("", api_of(source.module))
    ]


def from_plugins(sources: list[Source]) -> list[str]:
    """Check that a plugin imports nothing but the service maker."""
    return [
        f"{source.path}:{use.line}: a plugin may import only "
        f"twisted.application.service.ServiceMaker, not {use.target}"
        for source in sources
        if source.module.startswith("twisted.plugins")
        for use in uses(source, set())
        if use.target != "twisted.application.service.ServiceMaker"
    ]


def outside_core(sources: list[Source]) -> list[str]:
    """Check that the core imports no wire format, no SQL and no sockets."""
    return [
        f"{source.path}:{use.line}: the core knows no wire format, SQL or socket, "
        f"it may not import {use.target}"
        for source in sources
        if source.layer == "core"
        for use in uses(source, set())
        if any(f"{use.target}.".startswith(f"{name}.") for name in OUTSIDE)
    ]


def with_reactor(sources: list[Source]) -> list[str]:
    """Check who imports the global reactor."""
    return [
        f"{source.path}:{use.line}: the reactor is an argument; only "
        f"{sorted(WITH_REACTOR)} may import it, and functions of {sorted(WITH_LAZY_REACTOR)}"
        for source in sources
        for use in uses(source, set())
        if use.target == "twisted.internet.reactor"
        and source.layer not in WITH_REACTOR
        and not (use.lazy and source.layer in WITH_LAZY_REACTOR)
    ]


def ambient(sources: list[Source]) -> list[str]:
    """Check that the core takes time and chance from its arguments."""
    found = []
    for source in sources:
        if source.layer != "core":
            continue
        names: dict[str, str] = {}
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Import):
                names |= {alias.asname or alias.name: alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {
                    alias.asname or alias.name: f"{node.module}.{alias.name}"
                    for alias in node.names
                }
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Attribute | ast.Name):
                continue
            first, dot, rest = ast.unparse(node).partition(".")
            full = f"{names.get(first, '')}{dot}{rest}"
            if full in AMBIENT or (full.startswith("random.") and full != "random.Random"):
                found.append(
                    f"{source.path}:{node.lineno}: the core is given its clock and its "
                    f"randomness, it may not use {full}"
                )
    return found


def too_long(sources: list[Source]) -> list[str]:
    """Check the length of modules."""
    return [
        f"{source.path}:{source.lines}: a module has at most {LONGEST} lines"
        for source in sources
        if source.lines > LONGEST
    ]


def cycles(sources: list[Source]) -> list[str]:
    """Check that no module imports itself through others; imports for typing do not count."""
    known = {source.module for source in sources}
    graph = {
        source.module: {
            use.target: use.line
            for use in uses(source, known)
            if not use.typing and use.target in known and use.target != source.module
        }
        for source in sources
    }
    paths = {source.module: source.path for source in sources}
    found: list[str] = []
    done: set[str] = set()

    def visit(module: str, way: list[str]) -> None:
        if module in way:
            loop = [*way[way.index(module) :], module]
            line = graph[way[-1]][module]
            found.append(f"{paths[way[-1]]}:{line}: a cycle of imports: {' -> '.join(loop)}")
        elif module not in done:
            for target in graph[module]:
                visit(target, [*way, module])
            done.add(module)

    for module in graph:
        visit(module, [])
    return found


def unruled(sources: list[Source]) -> list[str]:
    """Check that there is a rule for every module."""
    return [
        f"{source.path}:1: no rule says what the layer {source.layer!r} may import"
        for source in sources
        if ours(source.module) and source.layer not in ALLOWED
    ]


@pytest.fixture(scope="module", name="sources")
def read_project() -> list[Source]:
    return project()


def report(breaches: list[str]) -> None:
    assert not breaches, "\n" + "\n".join(breaches)


def test_every_module_has_a_rule(sources: list[Source]) -> None:
    """Every module of gatewayd belongs to a layer that is known here."""
    assert len(sources) > 50
    report(unruled(sources))


def test_plugins(sources: list[Source]) -> None:
    """Plugins import the service maker and nothing else."""
    report(from_plugins(sources))


@pytest.mark.parametrize("layer", ALLOWED, ids=lambda name: name or "package")
def test_layer_imports(sources: list[Source], layer: str) -> None:
    """A layer imports of gatewayd only itself and what the table says: imports run one way."""
    report(outside_layer(sources, (layer,)))


def test_core_has_no_sockets(sources: list[Source]) -> None:
    """The core imports no wire format, no SQL and no sockets."""
    report(outside_core(sources))


def test_apis_are_strangers(sources: list[Source]) -> None:
    """No API imports another API."""
    report(across_apis(sources))


def test_reactor(sources: list[Source]) -> None:
    """The global reactor is imported only where a process begins."""
    report(with_reactor(sources))


def test_core_has_no_clock(sources: list[Source]) -> None:
    """The core never looks at the time of day or at the global random by itself."""
    report(ambient(sources))


def test_length(sources: list[Source]) -> None:
    """No module is longer than what can be read in one go."""
    report(too_long(sources))


def test_no_cycles(sources: list[Source]) -> None:
    """No module imports itself through others."""
    report(cycles(sources))


WRONG = [
    (outside_layer, "gatewayd/core/a.py", "\nfrom gatewayd.storage import sqlite", 2),
    (outside_layer, "gatewayd/core/a.py", "from ..transport.site import Site", 1),
    (outside_layer, "gatewayd/transport/a.py", "def f():\n    import gatewayd.storage.worker", 2),
    (outside_layer, "gatewayd/storage/a.py", "if TYPE_CHECKING:\n    import gatewayd.api.x", 2),
    (outside_layer, "gatewayd/errors.py", "from gatewayd import core", 1),
    (outside_layer, "gatewayd/configuration/a.py", "from gatewayd.core import model", 1),
    (across_apis, "gatewayd/api/ops/a.py", "\n\nimport gatewayd.api.devicehive.wire", 3),
    (from_plugins, "twisted/plugins/a.py", "import gatewayd.tap", 1),
    (outside_core, "gatewayd/core/a.py", "from twisted.web.http import OK", 1),
    (with_reactor, "gatewayd/core/a.py", "def f():\n    from twisted.internet import reactor", 2),
    (with_reactor, "gatewayd/talk.py", "from twisted.internet import reactor", 1),
    (ambient, "gatewayd/core/a.py", "import time\nx = time.time()", 2),
    (ambient, "gatewayd/core/a.py", "from time import time as now\nx = now()", 2),
    (ambient, "gatewayd/core/a.py", "from datetime import datetime\nx = datetime.now(UTC)", 2),
    (ambient, "gatewayd/core/a.py", "import random\nx = random.random()", 2),
    (too_long, "gatewayd/core/a.py", "x = 1\n" * (LONGEST + 1), LONGEST + 1),
    (unruled, "gatewayd/helpers.py", "", 1),
]


@pytest.mark.parametrize(("rule", "path", "text", "line"), WRONG)
def test_checker_catches(rule: object, path: str, text: str, line: int) -> None:
    """Each rule finds a breach and names its file and line."""
    source = parse(path, text)
    if rule is outside_layer:
        found = outside_layer([source, parse("gatewayd/core/__init__.py", "")], tuple(ALLOWED))
    else:
        assert callable(rule)
        found = rule([source])
    assert [breach.partition(": ")[0] for breach in found] == [f"{path}:{line}"]


def test_checker_catches_cycles() -> None:
    """A cycle is found once, and an import for typing makes none."""
    there = parse("gatewayd/core/a.py", "import gatewayd.core.b")
    back = parse("gatewayd/core/b.py", "def f():\n    from gatewayd.core import a")
    typing = parse("gatewayd/core/b.py", "if TYPE_CHECKING:\n    from gatewayd.core import a")
    (found,) = cycles([there, back])
    assert found.startswith("gatewayd/core/b.py:2: a cycle")
    assert cycles([there, typing]) == []


def test_checker_allows() -> None:
    """What the rules allow is no breach."""
    text = "import random\nfrom gatewayd.core import model\nfrom gatewayd.errors import Invalid\n"
    good = [
        parse("gatewayd/core/a.py", text + "chance = random.Random(1)"),
        parse("gatewayd/talk.py", "def f():\n    from twisted.internet import reactor"),
        parse("gatewayd/api/ops/a.py", "from gatewayd.api.ops import health"),
    ]
    for rule in (across_apis, outside_core, with_reactor, ambient, too_long, cycles, unruled):
        assert rule(good) == []
    assert outside_layer(good, tuple(ALLOWED)) == []

"""The packages of the clients, from the npm registry."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

#: Where they are installed; unset where nobody has asked for these tests.
VARIABLE = "GATEWAYD_NODE_PACKAGES"
_HERE = Path(__file__).parent
_NOT_RUN = "the clients on Node.js were not run"
_LISTS = ("package.json", "package-lock.json")
#: Seconds.
_PATIENCE = 300
#: How npm calls what is no reason to skip.
_BROKEN = re.compile(r"\b(EINTEGRITY|EUSAGE|EJSONPARSE|ERESOLVE|EBADENGINE)\b")


class Missing(Exception):
    """The clients cannot be run; it says why."""


class Broken(Exception):
    """The lists of packages are wrong, or what came is not what they say."""


def install() -> Path:
    """Return the directory with the packages, installed unless they are.

    :raises Missing: :raises Broken: the same each time; it is tried once.
    """
    outcome = _outcome()
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


@cache
def _outcome() -> Path | Missing | Broken:
    try:
        return _installed()
    except (Missing, Broken) as problem:
        return problem


def _installed() -> Path:
    directory = os.environ.get(VARIABLE)
    if not directory:
        raise Missing("the clients on Node.js are run by: tox -e clients")
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise Missing(f"{_NOT_RUN}: there is no {program} on this machine")
    home = Path(directory)
    modules = home / "node_modules"
    if not _is_installed(home):
        shutil.rmtree(modules, ignore_errors=True)
        home.mkdir(parents=True, exist_ok=True)
        for name in _LISTS:
            shutil.copy(_HERE / name, home)
        _run_npm(home)
    return modules


def _is_installed(home: Path) -> bool:
    """Whether the very packages of the lists are there; npm writes the hidden one at its end."""
    return (home / "node_modules" / ".package-lock.json").exists() and all(
        (home / name).read_bytes() == (_HERE / name).read_bytes() for name in _LISTS
    )


def _run_npm(home: Path) -> None:
    command = [
        "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1",
        "--prefix", str(home),
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, cwd=home, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        raise Missing(f"{_NOT_RUN}: npm took too long") from None
    if done.returncode != 0:
        if _BROKEN.search(done.stderr):
            raise Broken(done.stderr)
        lines = done.stderr.splitlines()
        said = [line for line in lines if line.startswith(("npm error", "npm ERR!"))]
        why = "; ".join(said[:3]) or f"npm ended with {done.returncode}"
        raise Missing(f"{_NOT_RUN}: their packages cannot be had: {why}")

"""The configuration of one node among several."""

from __future__ import annotations

import pytest

from gatewayd.configuration import File
from gatewayd.configuration.names import parse_node_name
from tests.configuration.files import MINIMAL, PLANTED, WITH_NODE, Files, look_up

TOGETHER = "internal, advertise and the cluster key go together"


def test_name_is_enough(files: Files) -> None:
    """A node may have a name alone; nobody can ask it for streams of bytes then."""
    node = files.load(MINIMAL, ["storage.url=postgresql://h/db", "node.name=b"]).node
    assert (node.name, node.internal, node.advertise, node.cluster_key) == ("b", None, None, None)
    shared = ["storage.url=postgresql://h/db", "node.lease=5s"]
    assert files.load(MINIMAL, shared).node.lease == 5


def test_certificates_of_the_cluster(files: Files) -> None:
    """The certificates of the other nodes are read at the start."""
    files.write("ca.pem", "certificates\n")
    node = files.load(WITH_NODE, ["node.cluster_ca_file=ca.pem"]).node
    assert node.cluster_ca_file == File("ca.pem", "certificates")
    (problem,) = files.problems(WITH_NODE, ["node.cluster_ca_file=other.pem"])
    assert problem.startswith("node.cluster_ca_file: no such file: ")


def test_not_for_sqlite(files: Files) -> None:
    """An SQLite database has one node, which needs no name."""
    assert files.problems(MINIMAL, ["node.name=b"]) == [
        "node: set with an SQLite database, which has one node; allowed: without it, or with "
        "storage.url of a PostgreSQL database"
    ]
    # What is wrong with the database is told first, and alone.
    (problem,) = files.problems(MINIMAL, ["node.name=b", "storage.url=mysql://h/db"])
    assert problem.startswith("storage.url: ")


@pytest.mark.parametrize(
    ("left", "missing"),
    [
        ("internal", [f"node.internal: missing; {TOGETHER}"]),
        ("advertise", [f"node.advertise: missing; {TOGETHER}"]),
        ("cluster_key", ["node.cluster_key: missing; it or cluster_key_file is required"]),
    ],
)
def test_what_goes_together(files: Files, left: str, missing: list[str]) -> None:
    """Of the listener, its address and the key, none is without the others."""
    assert files.problems(WITH_NODE.replace(f"\n{left} =", f"\n# {left} =")) == missing


@pytest.mark.parametrize("name", ["", "a b", "a/b", "\u00e9", "a" * 65, "a\n"])
def test_name(files: Files, name: str) -> None:
    """A name is short and made of letters that need no quotes anywhere."""
    with pytest.raises(ValueError, match="not the name of a node; allowed: 1 to 64 letters"):
        parse_node_name(name)
    assert parse_node_name("a" * 64) == "a" * 64


def test_refused_in_clear_words(files: Files) -> None:
    """A mistake is named with its key; the key of the cluster is not shown."""
    assert files.problems(WITH_NODE, ["node.name=a b"]) == [
        'node.name: "a b" is not the name of a node; allowed: 1 to 64 letters, digits, dots, '
        "_ and -"
    ]
    short = PLANTED[:15]
    assert files.problems(WITH_NODE, [f"node.cluster_key={short}"]) == [
        "node.cluster_key: the cluster key is too short; allowed: at least 16 characters"
    ]
    (problem,) = files.problems(WITH_NODE, ["node.advertise=10.0.0.1:8090"])
    assert problem.startswith('node.advertise: "10.0.0.1:8090" is not a base URL; allowed: ')
    (problem,) = files.problems(WITH_NODE, ["node.lease=2s"])
    assert problem == 'node.lease: "2s" is out of range; allowed: at least 3s and at most 1m'
    (problem,) = files.problems(WITH_NODE, ["node=5"])
    assert problem == "node: not a table; allowed: a table with keys"


def test_key_is_not_shown(files: Files) -> None:
    """No way of printing the settings shows the key of the cluster."""
    settings = files.load(WITH_NODE)
    assert look_up(settings, "node.cluster_key").startswith(PLANTED)
    assert PLANTED not in f"{settings} {settings.node!r}"

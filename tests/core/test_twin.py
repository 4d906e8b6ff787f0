"""Twins: how patches are merged, what is noted of them, and what they may not hold."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.core.hub import twin_limits
from gatewayd.core.hub.twin import Twin
from gatewayd.errors import Invalid

#: 2026-01-01T00:00:00.123Z
NOW = 1_767_225_600_123
Path = tuple[str, ...]

_keys = st.text("abc", max_size=2)
_scalars = (
    st.booleans()
    | st.integers(twin_limits.SMALLEST_INTEGER, twin_limits.LARGEST_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4)
)
_lists = st.lists(
    st.recursive(
        _scalars | st.none(), lambda inner: st.lists(inner) | st.dictionaries(_keys, inner)
    ),
    max_size=3,
)
_patches = st.dictionaries(
    _keys,
    st.recursive(
        _scalars | st.none() | _lists,
        lambda inner: st.dictionaries(_keys, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=3,
)


def broken(section: dict[str, Any]) -> tuple[str, str]:
    """Return the path and the rule for which a patch is refused."""
    with pytest.raises(Invalid) as caught:
        Twin().patched_reported(section, NOW)
    assert caught.value.entity == "twin"
    return caught.value.field, caught.value.rule


class Model:
    """Properties as a flat table: what stands at each path, and when it was changed."""

    def __init__(self) -> None:
        self.values: dict[Path, Any] = {(): {}}
        self.times: dict[Path, int] = {(): 0}

    def patch(self, patch: dict[str, Any], now: int) -> None:
        self.times[()] = now
        for key, value in patch.items():
            self._set((key,), value, now)

    def _set(self, path: Path, value: Any, now: int) -> None:
        if value is None:
            self._remove(path)
            return
        if not isinstance(value, dict):
            self._remove(path)
            self.values[path] = value
        elif not isinstance(self.values.get(path), dict):
            self._remove(path)
            self.values[path] = {}
        self.times[path] = now
        if isinstance(value, dict):
            for key, member in value.items():
                self._set((*path, key), member, now)

    def _remove(self, path: Path) -> None:
        for table in (self.values, self.times):
            for known in [each for each in table if each[: len(path)] == path]:
                del table[known]


def flat(section: dict[str, Any]) -> dict[Path, Any]:
    """Return properties by their paths; objects are there without their members."""
    found: dict[Path, Any] = {}

    def walk(path: Path, value: Any) -> None:
        found[path] = {} if isinstance(value, dict) else value
        if isinstance(value, dict):
            for key, member in value.items():
                walk((*path, key), member)

    walk((), section)
    return found


def flat_times(metadata: dict[str, Any]) -> dict[Path, str]:
    """Return the times in metadata by the paths that they belong to."""
    found: dict[Path, str] = {}

    def walk(path: Path, value: dict[str, Any]) -> None:
        found[path] = value["$lastUpdated"]
        for key, member in value.items():
            if not key.startswith("$"):
                walk((*path, key), member)

    walk((), metadata)
    return found


@given(st.lists(_patches, max_size=5))
def test_merge(patches: list[dict[str, Any]]) -> None:
    """Objects merge, null removes, the rest replaces; each level knows when it was changed."""
    twin, model = Twin(), Model()
    for number, patch in enumerate(patches):
        twin = twin.patched_desired(patch, NOW + number)
        model.patch(patch, NOW + number)
    section = twin.document()["properties"]["desired"]
    metadata, version = section.pop("$metadata"), section.pop("$version")
    assert flat(section) == model.values
    shown = {path: at[:24] for path, at in flat_times(metadata).items()}
    assert shown == {
        path: f"2026-01-01T00:00:00.{at - NOW + 123:03d}0" if at else "0001-01-01T00:00:00.0000"
        for path, at in model.times.items()
    }
    assert (version, twin.version, twin.revision) == (
        1 + len(patches), 1 + len(patches), len(patches)
    )  # fmt: skip


@given(st.lists(_patches, max_size=3))
def test_patches_change_nothing(patches: list[dict[str, Any]]) -> None:
    """A twin that was patched is as it was, and so is the patch."""
    twins = [Twin()]
    for patch in patches:
        before, given_patch = msgspec.json.encode(twins[-1]), json.dumps(patch)
        twins.append(twins[-1].patched_reported(patch, NOW))
        assert msgspec.json.encode(twins[-2]) == before
        assert json.dumps(patch) == given_patch


@given(_patches, _patches, _patches)
def test_round_trip(
    desired: dict[str, Any], reported: dict[str, Any], tags: dict[str, Any]
) -> None:
    """A twin that was stored is read as it was."""
    twin = Twin().patched_desired(desired, NOW).patched_reported(reported, NOW + 1)
    twin = twin.updated({"tags": tags}, NOW)
    stored = twin.stored()
    assert stored.version == 3
    assert Twin.read(stored) == twin
    assert Twin.read(stored).document() == twin.document()
    assert msgspec.json.decode(msgspec.json.encode(twin.document())) == twin.document()


def test_empty() -> None:
    """The twin of which nothing was said has its first version, and is not stored yet."""
    twin = Twin.read(None)
    assert twin.revision == 0
    never = "0001-01-01T00:00:00.0000000Z"
    assert twin.document() == {
        "version": 1,
        "tags": {},
        "properties": {
            "desired": {
                "$metadata": {"$lastUpdated": never, "$lastUpdatedVersion": 1}, "$version": 1
            },
            "reported": {"$metadata": {"$lastUpdated": never}, "$version": 1},
        },
    }  # fmt: skip


def test_document() -> None:
    """Applications see versions and times in Azure's form; devices see versions alone."""
    twin = Twin().patched_desired({"lamp": {"on": True, "was": None}}, NOW)
    twin = twin.patched_reported({"lamp": {"on": False}, "list": [1, {"a": None}]}, NOW)
    time = "2026-01-01T00:00:00.1230000Z"
    marked = {"$lastUpdated": time, "$lastUpdatedVersion": 2}
    assert twin.document() == {
        "version": 3,
        "tags": {},
        "properties": {
            "desired": {
                "lamp": {"on": True},
                "$metadata": {**marked, "lamp": {**marked, "on": marked}},
                "$version": 2,
            },
            "reported": {
                "lamp": {"on": False},
                "list": [1, {"a": None}],
                "$metadata": {
                    "$lastUpdated": time,
                    "lamp": {"$lastUpdated": time, "on": {"$lastUpdated": time}},
                    "list": {"$lastUpdated": time},
                },
                "$version": 2,
            },
        },
    }
    assert twin.for_device() == {
        "desired": {"lamp": {"on": True}, "$version": 2},
        "reported": {"lamp": {"on": False}, "list": [1, {"a": None}], "$version": 2},
    }


@pytest.mark.parametrize(
    "key",
    ["a.b", "$a", "a b", "\x00", "\x1f", "\x80", "\x9f", ".", " ", "$version", "$metadata", "a$"],
)
def test_keys(key: str) -> None:
    """Some characters are in no key, at any depth, in lists neither, nor in what is removed."""
    assert broken({key: 1}) == (f"reported.{key}", "characters")
    assert broken({"x": {key: 1}}) == (f"reported.x.{key}", "characters")
    assert broken({"x": [{}, {key: 1}]}) == (f"reported.x.{key}", "characters")
    assert broken({key: None}) == (f"reported.{key}", "characters")
    assert broken({"x": {"y": 1}, "z": {"y": 1, key: 1}}) == (f"reported.z.{key}", "characters")


@pytest.mark.parametrize("key", ["", "\x7f", "\xa0", "-", "é", "a/b", "😀"])
def test_other_keys(key: str) -> None:
    """Any other character may stand in a key."""
    assert Twin().patched_reported({key: 1}, NOW).reported.values == {key: 1}


def test_key_length() -> None:
    """Keys have as many as 1024 bytes, of UTF-8; an error shows the beginning of a longer one."""
    for fits, long in (("k" * 1024, "k" * 1025), ("é" * 512, "é" * 513)):
        assert Twin().patched_reported({fits: 1}, NOW).reported.values == {fits: 1}
        assert broken({long: 1}) == (f"reported.{long[:64]}", "key length")


def test_string_length() -> None:
    """Strings have as many as 4096 bytes of UTF-8; an error does not repeat them."""
    for fits, long in (("s" * 4096, "s" * 4097), ("😀" * 1024, "😀" * 1024 + "s")):
        assert Twin().patched_reported({"a": fits}, NOW).reported.values == {"a": fits}
        assert broken({"a": long}) == ("reported.a", "string length")
        assert broken({"a": [[long]]}) == ("reported.a", "string length")


def test_integers() -> None:
    """Integers have 53 bits; numbers with a fraction are not limited."""
    fits = {"a": -(2**52), "b": 2**52 - 1, "c": 1e300, "d": True}
    assert Twin().patched_reported(fits, NOW).reported.values == fits
    for number in (2**52, -(2**52) - 1, 10**30):
        assert broken({"a": {"b": number}}) == ("reported.a.b", "integer")


def nested(depth: int, inner: Any) -> dict[str, Any]:
    """Return an object with so many objects in each other around a value."""
    for _ in range(depth):
        inner = {"a": inner}
    return {"a": inner}


def test_depth() -> None:
    """Objects and lists nest ten deep in a section."""
    values: list[Any] = [1, None, {}]
    for inner in values:
        assert Twin().patched_reported(nested(9 + (inner != {}), inner), NOW)
    assert broken(nested(11, 1)) == ("reported" + ".a" * 11, "depth")
    assert broken(nested(10, {})) == ("reported" + ".a" * 11, "depth")
    assert broken(nested(10, [])) == ("reported" + ".a" * 11, "depth")
    assert broken(nested(9, [[]])) == ("reported" + ".a" * 10, "depth")


@pytest.mark.parametrize(
    ("value", "weight"),
    [
        ({}, 0), ({"ab": 1}, 10), ({"ab": 1.5}, 10), ({"ab": False}, 6), ({"": "xyz"}, 3),
        ({"é😀": "é😀"}, 4), ({"a": "x\x00\x1f\x80\x9fy\x7f"}, 4), ({"a": {"b": {"c": 1}}}, 11),
        ({"a": ["bc", 1, True, None, [], {}]}, 19),
    ],
)  # fmt: skip
def test_weight(value: Any, weight: int) -> None:
    """What is counted are characters, numbers and booleans."""
    assert twin_limits.weigh(value) == weight


def filled(weight: int) -> dict[str, str]:
    """Return properties of that weight."""
    whole, rest = divmod(weight, 4096)
    return {**{f"{n:04d}": "x" * 4092 for n in range(whole)}, "r": "x" * (rest - 1)}


def test_size() -> None:
    """What counts is what a section is after the patch; each has its own limit."""
    full = Twin().patched_reported(filled(32 * 1024 - 1), NOW)
    with pytest.raises(Invalid) as caught:
        full.patched_reported({"s": True}, NOW)
    error = caught.value
    assert (error.field, error.rule, error.value) == ("reported", "size", 32 * 1024 + 4)
    exact = full.patched_reported({"r": None, "s": "x" * (32 * 1024 - 7 * 4096 - 1)}, NOW)
    assert twin_limits.weigh(exact.reported.values) == 32 * 1024
    assert exact.patched_desired(filled(32 * 1024 - 1), NOW).desired.version == 2
    assert full.updated({"tags": filled(8 * 1024 - 1)}, NOW)
    with pytest.raises(Invalid) as caught:
        full.updated({"tags": {**filled(8 * 1024 - 1), "s": "ab"}}, NOW)
    assert (caught.value.field, caught.value.rule) == ("tags", "size")


def test_size_of_what_weighs_nothing() -> None:
    """Nobody fills the store with what is not counted."""
    nothings: list[Any] = ["", [], {}, "\x01" * 100]
    for nothing in nothings:
        assert twin_limits.weigh([nothing] * 1000) == 0
        assert Twin().patched_reported({"a": [nothing] * 100}, NOW)
        enough = 16 * twin_limits.PROPERTIES // (len(json.dumps(nothing)) + 1) + 1
        assert broken({"a": [nothing] * enough})[1] == "size"


@st.composite
def _said(draw: st.DrawFn) -> dict[str, Any]:
    """Return what another hub says of a twin, with and without versions."""

    def section() -> dict[str, Any]:
        said = dict(draw(_patches))
        if draw(st.booleans()):
            said["$version"] = draw(st.integers(0, 20))
        if draw(st.booleans()):
            said["$metadata"] = {"$lastUpdated": "then", "a": {"b": 1}}
        return said

    body: dict[str, Any] = {"deviceId": "D"}
    if draw(st.booleans()):
        body["version"] = draw(st.integers(0, 20))
    if draw(st.booleans()):
        body["tags"] = draw(_patches)
    body["properties"] = {
        name: section() for name in ("desired", "reported") if draw(st.booleans())
    }
    return body


@given(st.lists(st.tuples(st.booleans(), _said()) | _patches, max_size=6))
def test_versions(steps: list[Any]) -> None:
    """Versions never go back, whoever made the change, and every change is one revision."""
    twin = Twin()
    for step in steps:
        if isinstance(step, dict):
            after = twin.patched_reported(step, NOW)
            assert (after.version, after.reported.version) == (
                twin.version + 1, twin.reported.version + 1
            )  # fmt: skip
        else:
            whole, body = step
            after = (twin.replaced if whole else twin.updated)(body, NOW)
            theirs = body.get("version", -1)
            assert after.version == (theirs if theirs >= twin.version else twin.version + 1)
            for name, said in body["properties"].items():
                ours = getattr(twin, name).version
                theirs = said.get("$version", -1)
                assert getattr(after, name).version == (theirs if theirs >= ours else ours + 1)
        assert after.revision == twin.revision + 1
        assert after.desired.version >= twin.desired.version
        assert after.reported.version >= twin.reported.version
        twin = after


def test_updated() -> None:
    """A partial word of another hub is merged, without what it says of times and versions."""
    twin = Twin().patched_reported({"a": {"b": 1, "c": 2}}, NOW)
    twin = twin.updated({"tags": {"room": 1, "floor": {"no": 3}}}, NOW)
    body = {
        "version": 40,
        "tags": {"room": None, "floor": {"up": True}},
        "properties": {
            "reported": {"a": {"b": None}, "$version": 7, "$metadata": {"$lastUpdated": "then"}}
        },
    }
    after = twin.updated(body, NOW + 1)
    assert (after.version, after.tags) == (40, {"floor": {"no": 3, "up": True}})
    assert (after.reported.values, after.reported.version) == ({"a": {"c": 2}}, 7)
    assert after.desired is twin.desired
    again = after.updated(body, NOW + 2)
    assert (again.version, again.reported.version) == (40, 7)


def test_replaced() -> None:
    """A whole word of another hub is all there is; what only devices say stays if not named."""
    twin = Twin().patched_reported({"a": 1}, NOW).patched_desired({"b": 2}, NOW)
    twin = twin.updated({"tags": {"room": 1}}, NOW)
    partly = twin.replaced({"version": 9, "properties": {"desired": {"c": 3}}}, NOW)
    assert (partly.tags, partly.desired.values, partly.reported.values) == ({}, {"c": 3}, {"a": 1})
    whole = {"tags": {"x": 1, "y": None}, "properties": {"reported": {"d": {"e": None}}}}
    replaced = twin.replaced(whole, NOW)
    assert (replaced.tags, replaced.desired.values) == ({"x": 1}, {})
    assert replaced.reported.values == {"d": {}}
    assert set(replaced.document()["properties"]["reported"]["$metadata"]) == {"$lastUpdated", "d"}


@pytest.mark.parametrize(
    "body",
    [
        {"version": "1"}, {"version": -1}, {"version": 2**53}, {"tags": 1}, {"tags": [1]},
        {"properties": []}, {"properties": {"desired": "x"}},
        {"properties": {"reported": {"$version": "x"}}},
        {"properties": {"reported": {"$version": -1}}},
    ],
)  # fmt: skip
def test_other_hubs_nonsense(body: dict[str, Any]) -> None:
    """What is no word of a twin is refused, and said to be wrong."""
    for take in (Twin().updated, Twin().replaced):
        with pytest.raises(Invalid) as caught:
            take(body, NOW)
        assert (caught.value.entity, caught.value.rule) == ("twin", "form")
        assert "Expected" in caught.value.value


@pytest.mark.parametrize("section", ["desired", "reported"])
def test_other_hubs_have_the_same_limits(section: str) -> None:
    """What another hub says is not larger than what is said here."""
    for take in (Twin().updated, Twin().replaced):
        with pytest.raises(Invalid) as caught:
            take({"properties": {section: {"a": {"$version": 1}}}}, NOW)
        assert (caught.value.field, caught.value.rule) == (f"{section}.a.$version", "characters")
        with pytest.raises(Invalid) as caught:
            take({"tags": {"a": {"b c": 1}}}, NOW)
        assert caught.value.field == "tags.a.b c"

"""Twins: what is wanted of a device, what it says of itself, and what is noted of it."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any

import msgspec

from gatewayd.core.hub import twin_limits
from gatewayd.core.shadow import StoredTwin
from gatewayd.errors import Invalid

_DESIRED, _REPORTED, _TAGS = "desired", "reported", "tags"
_VERSION, _METADATA = "$version", "$metadata"
#: What was never changed is shown as that old.
_NEVER = "0001-01-01T00:00:00.0000000Z"
#: The largest integer that every JSON parser reads as it is.
_HIGHEST = 2**53 - 1


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """When a property was changed, and when its members were.

    :ivar at: ms since the epoch; 0 for never. :ivar version: what the section's became then.
    """

    at: int = 0
    version: int = 1
    members: dict[str, Mark] = {}

    def shown(self, versions: bool) -> dict[str, Any]:
        """Return it as a twin's metadata, with or without versions."""
        found: dict[str, Any] = {"$lastUpdated": _instant(self.at)}
        if versions:
            found["$lastUpdatedVersion"] = self.version
        for key, member in self.members.items():
            found[key] = member.shown(versions)
        return found


_UNMARKED = Mark()


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """The desired or the reported properties.

    :ivar values: not to be changed. :ivar version: grows with every patch.
    """

    values: dict[str, Any] = {}
    mark: Mark = _UNMARKED
    version: int = 1

    def patched(self, name: str, patch: dict[str, Any], version: int, now: int) -> Section:
        """Return it with a patch merged in. :raises Invalid: the patch breaks a limit."""
        twin_limits.check_patch(name, patch)
        values, mark = _merge(self.values, self.mark, patch, Mark(now, version))
        twin_limits.check_size(name, values, twin_limits.PROPERTIES)
        return Section(values=values, mark=mark, version=version)

    def told(self, name: str, said: dict[str, Any], now: int, whole: bool) -> Section:
        """Return it as another hub says that it is, with that one's version unless ours is higher.

        :param whole: whether that is all of it; otherwise it is a patch. :raises Invalid:
        """
        version = _followed(_convert(said.get(_VERSION), _Version | None), self.version)
        patch = {key: said[key] for key in said if key not in (_VERSION, _METADATA)}
        return (Section() if whole else self).patched(name, patch, version, now)

    def document(self, versions: bool) -> dict[str, Any]:
        """Return it as applications see it. :param versions: whether its metadata has versions."""
        return {**self.values, _METADATA: self.mark.shown(versions), _VERSION: self.version}

    def for_device(self) -> dict[str, Any]:
        """Return it as the device sees it."""
        return {**self.values, _VERSION: self.version}


_EMPTY = Section()


class Twin(msgspec.Struct, frozen=True, kw_only=True):
    """A device's twin; each change makes a new one.

    :ivar revision: how often it was changed here; 0: never. What the store knows it by.
    :ivar version: grows with every change; higher than the revision when another hub keeps it.
    :ivar tags: notes of applications that the device does not see; not to be changed.
    """

    revision: int = 0
    version: int = 1
    tags: dict[str, Any] = {}
    desired: Section = _EMPTY
    reported: Section = _EMPTY

    @classmethod
    def read(cls, stored: StoredTwin | None) -> Twin:
        """Return a twin that was stored; an empty one for a device of which nothing was said."""
        return cls() if stored is None else msgspec.json.decode(stored.document, type=cls)

    def stored(self) -> StoredTwin:
        """Return it as it is stored."""
        return StoredTwin(version=self.revision, document=msgspec.json.encode(self))

    def patched_desired(self, patch: dict[str, Any], now: int) -> Twin:
        """Return it with a patch of the desired properties merged in.

        Objects are merged, null removes, everything else replaces.

        :param now: ms since the epoch.
        :raises Invalid: ``"twin"``, the path of what breaks a limit, and which; see
            :mod:`gatewayd.core.hub.twin_limits`.
        """
        version = self.desired.version + 1
        return self._next(desired=self.desired.patched(_DESIRED, patch, version, now))

    def patched_reported(self, patch: dict[str, Any], now: int) -> Twin:
        """Return it with a patch of the reported properties merged in, in the same way."""
        version = self.reported.version + 1
        return self._next(reported=self.reported.patched(_REPORTED, patch, version, now))

    def updated(self, body: dict[str, Any], now: int) -> Twin:
        """Return it with a change merged in that another hub tells of.

        :param body: ``{version?, tags?, properties: {desired?, reported?}}``; a version there, or a
            ``$version`` of a section, is taken over unless the one that is known is higher.
        :raises Invalid: also ``"form"``: it is none of that form; its value says what is wrong.
        """
        said = _convert(body, _Said)
        return self._told(said, self._merged_tags(self.tags, said.tags or {}), now, whole=False)

    def replaced(self, body: dict[str, Any], now: int) -> Twin:
        """Return what another hub replaces it by.

        Reported properties that the body does not name stay: only a device can replace them.

        :param body: as in :meth:`updated`. :raises Invalid:
        """
        said = _convert(body, _Said)
        return self._told(said, self._merged_tags({}, said.tags or {}), now, whole=True)

    def _merged_tags(self, tags: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
        twin_limits.check_patch(_TAGS, patch)
        tags, _ = _merge(tags, _UNMARKED, patch, _UNMARKED)
        twin_limits.check_size(_TAGS, tags, twin_limits.TAGS)
        return tags

    def _told(self, said: _Said, tags: dict[str, Any], now: int, whole: bool) -> Twin:
        desired, reported = said.properties.desired, said.properties.reported
        if whole and desired is None:
            desired = {}
        return msgspec.structs.replace(
            self, revision=self.revision + 1, version=_followed(said.version, self.version),
            tags=tags,
            desired=self.desired if desired is None
            else self.desired.told(_DESIRED, desired, now, whole),
            reported=self.reported if reported is None
            else self.reported.told(_REPORTED, reported, now, whole),
        )  # fmt: skip

    def _next(self, **changes: Section) -> Twin:
        return msgspec.structs.replace(
            self, revision=self.revision + 1, version=self.version + 1, **changes
        )

    def document(self) -> dict[str, Any]:
        """Return it as applications see it, ready for JSON; not to be changed."""
        return {
            "version": self.version,
            "tags": self.tags,
            "properties": {
                _DESIRED: self.desired.document(versions=True),
                _REPORTED: self.reported.document(versions=False),
            },
        }

    def for_device(self) -> dict[str, Any]:
        """Return it as the device sees it: the properties, with their versions."""
        return {_DESIRED: self.desired.for_device(), _REPORTED: self.reported.for_device()}


_Version = Annotated[int, msgspec.Meta(ge=0, le=_HIGHEST)]


class _Properties(msgspec.Struct):
    desired: dict[str, Any] | None = None
    reported: dict[str, Any] | None = None


class _Said(msgspec.Struct):
    """What another hub says of a twin; it says more that is nothing to us."""

    version: _Version | None = None
    tags: dict[str, Any] | None = None
    properties: _Properties = msgspec.field(default_factory=_Properties)


def _convert(value: Any, type_: Any) -> Any:
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        raise Invalid("twin", "body", str(error), "form") from None


def _followed(theirs: int | None, ours: int) -> int:
    """Return the version after a change that another hub told of, which may come twice."""
    return ours + 1 if theirs is None or theirs < ours else theirs


def _merge(
    values: dict[str, Any], marked: Mark, patch: dict[str, Any], mark: Mark
) -> tuple[dict[str, Any], Mark]:
    """Return values with a patch merged in, and when each was changed: as ``mark`` says."""
    values, members = dict(values), dict(marked.members)
    for key, value in patch.items():
        if value is None:
            values.pop(key, None)
            members.pop(key, None)
        elif isinstance(value, dict):
            known = values.get(key)
            inner = members.get(key, _UNMARKED)
            values[key], members[key] = _merge(
                known if isinstance(known, dict) else {}, inner, value, mark
            )
        else:
            values[key], members[key] = value, mark
    return values, Mark(mark.at, mark.version, members)


@lru_cache(1024)
def _instant(at: int) -> str:
    """Write a time as Azure does, with seven digits after the second."""
    if not at:
        return _NEVER
    return f"{datetime.fromtimestamp(at // 1000, UTC):%Y-%m-%dT%H:%M:%S}.{at % 1000:03d}0000Z"

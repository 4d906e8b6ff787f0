"""What may be said of a plugin, and by whom."""

from __future__ import annotations

import re

import msgspec

from gatewayd.core.access import Action, Principal
from gatewayd.core.model import PluginFilter, User
from gatewayd.core.queries import PluginQuery
from gatewayd.errors import Denied, Invalid

_NAME = re.compile(r"[\w@.-]+", re.ASCII)
_DESCRIPTION = re.compile(r"[\w\s@.-]+", re.ASCII)
_LENGTH = (3, 128)
_LARGEST = 2**63 - 1
#: What the owner of a plugin lets it read.
READING = frozenset({Action.EVENT_READ, Action.COMMAND_READ})


def manager(principal: Principal) -> User:
    """Return the user that manages its plugins. :raises Denied:"""
    principal.require(Action.PLUGIN_MANAGE)
    if principal.user is None:
        raise Denied
    return principal.user


def visible(principal: Principal, query: PluginQuery) -> PluginQuery:
    """Narrow a query to what the principal may see. :raises Denied:"""
    user = manager(principal)
    if user.is_admin:
        return query
    if query.user not in (None, user.id):
        raise Denied("plugin")
    return msgspec.structs.replace(query, user=user.id)


def narrow(principal: Principal, wanted: PluginFilter) -> PluginFilter:
    """Return a filter that passes no more than a credential reaches, which may be limited.

    What its user may see limits the feed anyway, now and later.
    """
    whole = Principal(READING, user=principal.user).scope
    scope = principal.scope
    return msgspec.structs.replace(
        wanted,
        networks=_common(wanted.networks, scope.networks, whole.networks),
        types=_common(wanted.types, scope.types, whole.types),
    )


def _common(
    wanted: frozenset[int] | None, mine: frozenset[int] | None, whole: frozenset[int] | None
) -> frozenset[int] | None:
    """Return what is wanted of what a credential reaches, if that is not all its user has."""
    if mine is None or mine == whole:
        return wanted
    return mine if wanted is None else wanted & mine


def check(name: str | None, description: str | None, wanted: PluginFilter | None) -> None:
    """Check what is said of a plugin; None says nothing. :raises Invalid:"""
    for field, value, allowed in (
        ("name", name, _NAME),
        ("description", description, _DESCRIPTION),
    ):
        if value is not None:
            low, high = _LENGTH
            if not low <= len(value) <= high:
                raise Invalid("plugin", field, value, "length")
            if not allowed.fullmatch(value):
                raise Invalid("plugin", field, value, "characters")
    wanted = wanted or PluginFilter()
    if wanted.kinds is not None and not wanted.kinds:
        raise Invalid("plugin", "kinds", None, "required")
    for field, members in (("networks", wanted.networks), ("types", wanted.types)):
        for member in members or ():
            if not 0 < member <= _LARGEST:
                raise Invalid("plugin", field, member, "range")

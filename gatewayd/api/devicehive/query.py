"""What a REST request says in its path and query, read as fields."""

from __future__ import annotations

from typing import Any

import msgspec
from werkzeug.exceptions import BadRequest, NotFound

from gatewayd.api.devicehive.errors import Refused
from gatewayd.api.devicehive.fields import Fields, Malformed
from gatewayd.api.devicehive.wire import encode


def query_members(request: Any) -> dict[str, msgspec.Raw]:
    """Return the parameters of a request's query; of several with one name the first.

    :raises BadRequest: one is not UTF-8.
    """
    try:
        return {
            name.decode(): msgspec.Raw(encode(values[0].decode()))
            for name, values in request.args.items()
        }
    except UnicodeDecodeError:
        raise BadRequest from None


class QueryFields(Fields):
    """Fields that came as text; the errors are those of the original's URL parameters.

    A parameter that is no number makes the path unknown (devicehive contract, section 3).
    """

    __slots__ = ("_depth",)

    def __init__(self, members: dict[str, msgspec.Raw], depth: int) -> None:
        super().__init__(members)
        self._depth = depth

    def integer(self, name: str) -> int | None:
        """Return an integer. :raises NotFound: it is none."""
        try:
            return super().integer(name)
        except Malformed:
            raise NotFound from None

    def timestamp(self, name: str) -> int | None:
        """Return a time in ms. :raises Refused: 400: it is none."""
        try:
            return super().timestamp(name)
        except Malformed:
            raise Refused(400, "Unparseable timestamp") from None

    def json_object(self, name: str) -> bytes | None:
        """Return the JSON object that a parameter is. :raises Malformed: it is none."""
        text = self.text(name)
        if text is None:
            return None
        Fields.parse(text.encode(), self._depth)
        return text.encode()

    def _list(self, name: str) -> list[Any] | None:
        text = self.text(name)
        return None if text is None else [part for part in text.split(",") if part]

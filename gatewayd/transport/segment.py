"""Segments of a path, as routes name them."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, unquote

from werkzeug.routing import BaseConverter


class Segment(BaseConverter):
    """``<seg:name>``: one path segment that may contain any character, ``/`` included.

    ``<seg('a', 'b'):name>`` is any segment but these, which stand for something else there.

    Twisted decodes each segment and Klein joins them with ``/``, so an encoded slash in an id
    would end the segment. The root resource therefore quotes ``%`` and ``/`` again in each
    segment, and this converter undoes that.
    """

    part_isolating = True

    def __init__(self, rules: Any, *others: str) -> None:
        super().__init__(rules)
        words = "|".join(re.escape(word) for word in others)
        self.regex = rf"(?!(?:{words})\Z)[^/]+" if others else "[^/]+"

    def to_python(self, value: str) -> str:
        """Decode the segment."""
        return unquote(value)

    def to_url(self, value: Any) -> str:
        """Encode a value for use as one segment."""
        return quote(quote(str(value), safe=""), safe="")


class Tail(Segment):
    """``<tail:name>``: all that is left of a path, for clients that do not quote a ``/``."""

    part_isolating = False

    def __init__(self, rules: Any) -> None:
        super().__init__(rules)
        self.regex = ".+"

"""What the daemon consists of, built from its settings and put together."""

from gatewayd.composition.part import Api, Part
from gatewayd.composition.parts import Composition

__all__ = ["Api", "Composition", "Part"]

"""The descriptions of the REST APIs: OpenAPI in JSON, made from the YAML that people write.

``python -m gatewayd.openapi`` prints what is kept as gatewayd/api/devicehive/openapi.json, and
``python -m gatewayd.openapi devicelink`` that of another API. It needs the source tree and PyYAML;
the daemon needs neither, it serves the JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

SOURCES = Path(__file__).parent.parent / "docs" / "openapi"
SOURCE = SOURCES / "devicehive.yaml"


def render(text: str) -> str:
    """Return a YAML document as JSON. :raises yaml.YAMLError: it is none."""
    return json.dumps(yaml.safe_load(text), ensure_ascii=False, indent=1) + "\n"


if __name__ == "__main__":
    (path,) = [SOURCES / f"{api}.yaml" for api in sys.argv[1:]] or [SOURCE]
    sys.stdout.write(render(path.read_text()))

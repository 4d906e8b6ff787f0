"""Make the settings of TOML files, of ``--set`` and, for ``--dev``, of next to nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gatewayd.configuration.data_directory import complete
from gatewayd.configuration.document import Table, override, read
from gatewayd.configuration.problems import Problems
from gatewayd.configuration.reader import Reader
from gatewayd.configuration.settings import Settings
from gatewayd.errors import ConfigError

#: What ``--dev`` serves to applications and devices.
DEV_APIS = ["devicehive", "devicelink", "cloudrelay", "iotkit", "ux4iot"]


def load(path: Path, overrides: Sequence[str] = ()) -> Settings:
    """Return the settings of a configuration file.

    :param path: the file; ``conf.d/*.toml`` beside it are merged into it, sorted by name.
    :param overrides: ``key=value`` each, as in ``limits.body=2MiB``; they win over the files.
    :raises ConfigError: a file is missing or broken, or a setting is not allowed; one line for
        every problem.
    """
    path = path.absolute()
    problems = Problems()
    document = read(path, problems)
    override(document, overrides, problems)
    return Reader(path.parent, problems).settings(document)


def dev(data: Path, overrides: Sequence[str] = ()) -> Settings:
    """Return the settings of ``--dev``: loopback only, everything kept in one directory.

    The directory is made when it is missing (mode 700), and so are the keys, passwords and other
    secrets in it (mode 600); a later start finds them again.

    :param data: the directory; relative names in the overrides are resolved there.
    :param overrides: ``key=value`` each, as in ``limits.body=2MiB``.
    :raises ConfigError: a setting is not allowed, a listener would be public, or the directory
        cannot be used; one line for every problem.
    """
    data = data.absolute()
    problems = Problems()
    document: Table = {
        "listen": [
            {"endpoint": "tcp:8080:interface=127.0.0.1", "serve": [*DEV_APIS]},
            {"endpoint": "tcp:9090:interface=127.0.0.1", "serve": ["ops"]},
        ]
    }
    override(document, overrides, problems)
    try:
        complete(data, document)
    except OSError as error:
        raise ConfigError(f"{error.filename or data}: cannot be made: {error.strerror}") from None
    return Reader(data, problems).settings(document, local_only=True)

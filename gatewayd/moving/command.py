"""``gatewayd import-devicehive``: takes over the users and devices of a DeviceHive server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from gatewayd import configuration
from gatewayd.configuration import Settings, Storage
from gatewayd.core.estate import Estate
from gatewayd.core.model import Status
from gatewayd.core.tokens import decode_secret
from gatewayd.errors import ConfigError, Unavailable
from gatewayd.moving.databases import database
from gatewayd.moving.dump import Dump, read
from gatewayd.moving.table import Unusable
from gatewayd.service import wall_ms
from gatewayd.storage.pg.store import PostgresStore
from gatewayd.storage.sqlite import SQLiteStore


async def run(reactor: Any, config_file: Path, directory: Path, out: TextIO, err: TextIO) -> int:
    """Import what psql has written into a directory.

    :param config_file: of the gateway, which must not run meanwhile.
    :return: the exit code: 0 when everything is on disk, 1 when nothing was imported.
    """
    try:
        settings = configuration.load(config_file)
        dump = read(directory)
        await _adopt(reactor, settings, dump.estate)
    except (ConfigError, Unusable) as problem:
        err.write(f"gatewayd import-devicehive: {problem}\n")
        return 1
    for line in _summary(settings, dump):
        out.write(f"{line}\n")
    return 0


async def _adopt(reactor: Any, settings: Settings, estate: Estate) -> None:
    place = database(settings.storage, create=True).place
    store = _store(settings.storage, reactor)
    await store.start()
    try:
        if not await store.adopt(estate):
            raise Unusable(
                f"{place}: users or devices are in it already; an import goes into a new database"
            )
    except Unavailable as error:
        raise Unusable(f"{place}: cannot be written: {error}") from None
    finally:
        await store.stop()


def _store(storage: Storage, reactor: Any) -> SQLiteStore | PostgresStore:
    if storage.is_shared:
        assert storage.url is not None
        return PostgresStore(storage.url.reveal(), reactor, wall_ms)
    return SQLiteStore(storage.path, reactor, wall_ms)


def _summary(settings: Settings, dump: Dump) -> Iterator[str]:
    estate = dump.estate
    counts = (
        _count(len(estate.users), "user"),
        _count(len(estate.networks), "network"),
        _count(len(estate.types), "device type"),
        _count(len(estate.devices), "device"),
        _count(len(estate.settings), "setting"),
    )
    yield f"imported {', '.join(counts)}"
    if dump.missing:
        yield f"not there, so nothing of it: {', '.join(dump.missing)}"
    if dump.left_out:
        yield f"settings that mean nothing here, left out: {', '.join(dump.left_out)}"
    silent = sum(not user.password for user in estate.users)
    if silent:
        yield f"without a password, so without a login until it has one: {_count(silent, 'user')}"
    blocked = sum(device.blocked for device in estate.devices)
    if blocked:
        devices = _count(blocked, "device")
        yield f"blocked, which DeviceHive only showed and gatewayd enforces: {devices}"
    if not any(user.is_admin and user.status is Status.ACTIVE for user in estate.users):
        yield "warning: no user is an active administrator"
    if dump.jwt_secret is not None:
        yield from _about_tokens(settings, dump.jwt_secret.reveal())


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _about_tokens(settings: Settings, secret: str) -> Iterator[str]:
    """Tell whether tokens that the old server made are valid here, without its secret."""
    ours = settings.devicehive
    try:
        same = ours.jwt_secret is not None and decode_secret(
            ours.jwt_secret.reveal(), ours.jwt_secret_encoding
        ) == decode_secret(secret, "devicehive")
    except ConfigError:
        same = False
    if same:
        yield "jwt.secret is the configured devicehive.jwt_secret: old tokens stay valid"
        return
    yield "jwt.secret was not imported, and is not the configured secret: old tokens are invalid."
    yield "To keep them valid, put its value into a file that only the gateway can read, and set"
    yield 'devicehive.jwt_secret_file to it and devicehive.jwt_secret_encoding to "devicehive"'

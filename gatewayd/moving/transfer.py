"""``gatewayd export`` and ``gatewayd import``: all that a gateway keeps, from one to another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import mkstemp
from typing import IO, TextIO

from gatewayd import __version__, configuration
from gatewayd.errors import ConfigError
from gatewayd.moving.databases import database
from gatewayd.storage.transfer import stream
from gatewayd.storage.transfer.database import check_versions

#: Standard input or output instead of a file.
STANDARD = "-"
_INTERRUPTED = 130


def export_all(config_file: Path, output: str, standard: IO[bytes], err: TextIO) -> int:
    """Write down all that is in the database of a configuration.

    :param output: the file, made with mode 600 and only when all is in it; "-" for standard output.
    :param err: takes the progress, and what went wrong.
    :return: the exit code: 0 when everything is written, else 1, or 130 after an interrupt.
    """

    def run() -> None:
        settings = configuration.load(config_file)
        with database(settings.storage, create=False) as source:
            check_versions(source)
            with _written(output, standard) as out:
                stream.write(__version__, source.rows(), out, _teller(err))

    return _run("export", run, output, err)


def import_all(config_file: Path, input_: str, standard: IO[bytes], err: TextIO) -> int:
    """Put what was exported into the database of a configuration, which has nothing in it.

    :param input_: the file; "-" for standard input.
    :param err: takes the progress, and what went wrong.
    :return: the exit code: 0 when everything is in the database; 1, or 130 after an interrupt, when
        nothing is.
    """

    def run() -> None:
        settings = configuration.load(config_file)
        with _opened(input_, standard) as lines:
            rows = stream.read(lines, _teller(err))
            with database(settings.storage, create=True) as target:
                target.migrate()
                target.fill(rows)

    return _run("import", run, input_, err)


def _run(verb: str, work: Callable[[], None], name: str, err: TextIO) -> int:
    """Do the work; return the exit code."""
    try:
        work()
    except (ConfigError, stream.Broken) as problem:
        reason = f"{_shown(name)}: {problem}" if isinstance(problem, stream.Broken) else problem
        err.write(f"gatewayd {verb}: {reason}\n")
        return 1
    except OSError as problem:
        where = problem.filename or _shown(name)
        err.write(f"gatewayd {verb}: {where}: {problem.strerror}\n")
        return 1
    except KeyboardInterrupt:
        err.write(f"gatewayd {verb}: interrupted\n")
        return _INTERRUPTED
    return 0


def _shown(name: str) -> str:
    return "the standard input or output" if name == STANDARD else name


def _teller(err: TextIO) -> stream.Tell:
    def tell(table: str, rows: int) -> None:
        err.write(f"{table}: {rows}\n")
        err.flush()

    return tell


def _written(name: str, standard: IO[bytes]) -> AbstractContextManager[IO[bytes]]:
    """Return where to write. :raises ConfigError: secrets would be shown."""
    if name != STANDARD:
        return _whole(Path(name))
    if standard.isatty():
        raise ConfigError(
            "there are secrets in an export, which a terminal would show; give it a file with "
            "--output FILE, or a pipe"
        )
    # With a buffer of its own: what is left in it when a pipe breaks is lost in silence.
    return open(standard.fileno(), "wb", closefd=False)


def _opened(name: str, standard: IO[bytes]) -> AbstractContextManager[IO[bytes]]:
    """Return from where to read. :raises ConfigError: nobody types an export."""
    if name != STANDARD:
        return open(name, "rb")
    if standard.isatty():
        raise ConfigError("give it a file with --input FILE, or a pipe")
    return open(standard.fileno(), "rb", closefd=False)


@contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file that only its owner can read; it gets its name when all is in it."""
    if path.exists() and not path.is_file():
        raise ConfigError(f'{path} is no file; "-" is the standard output')
    descriptor, name = mkstemp(prefix=f".{path.name}.", dir=path.absolute().parent)
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise

"""``python -m benchmarks COMMAND ...``: load generators and the servers they measure."""

from __future__ import annotations

import sys
from importlib import import_module

#: The commands; each module has ``run(argv)``, which gets the arguments after the command.
COMMANDS = {
    "echo": "benchmarks.echo",
    "fanout": "benchmarks.fanout",
    "link": "benchmarks.link",
    "messages": "benchmarks.messages",
    "nodes": "benchmarks.nodes",
    "relay": "benchmarks.relay",
    "siege": "benchmarks.siege",
    "soak": "benchmarks.soak",
    "store": "benchmarks.store",
}


def main(argv: list[str]) -> None:
    """Run the command that *argv* names."""
    if not argv or argv[0] not in COMMANDS:
        sys.exit(f"usage: python -m benchmarks {{{','.join(sorted(COMMANDS))}}} ...")
    import_module(COMMANDS[argv[0]]).run(argv[1:])


if __name__ == "__main__":
    main(sys.argv[1:])

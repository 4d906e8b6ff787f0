"""All that a store keeps, as a stream of rows out of one database and into another.

Imports run one way: ``sqlite`` and ``pg`` read and write the ``rows``, and ``stream`` writes them
down as lines and reads these again. Nothing here is a part of the daemon.
"""

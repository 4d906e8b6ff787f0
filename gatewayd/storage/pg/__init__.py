"""The store in PostgreSQL.

:mod:`.store` is the Store; :mod:`.tx` is what its parts see of the database, and the rules they
keep; :mod:`.journal` and :mod:`.history` are the log; the other nouns have a module each.
"""

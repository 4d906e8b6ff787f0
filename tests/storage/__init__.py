import pytest

# Their assertions explain themselves like those of a test module.
pytest.register_assert_rewrite(
    *(
        f"{__name__}.conformance_{topic}"
        for topic in (
            "append", "commands", "devices", "groups", "listing", "live_sessions", "plugins",
            "replay", "retention", "shadows", "users",
        )
    )
)  # fmt: skip

import pytest

# Their assertions explain themselves like those of a test module.
pytest.register_assert_rewrite(
    *(
        f"{__name__}.conformance_{topic}"
        for topic in (
            "append", "commands", "devices", "groups", "listing", "plugins", "replay", "retention",
            "users",
        )
    )
)  # fmt: skip

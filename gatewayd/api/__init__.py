"""One package per public API."""

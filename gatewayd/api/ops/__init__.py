"""The operator's API: health."""

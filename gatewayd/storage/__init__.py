"""Drivers of the Store protocol."""

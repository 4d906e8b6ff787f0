"""Twisted, Autobahn and Klein plumbing that knows no API."""

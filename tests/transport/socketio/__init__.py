"""Tests of the Engine.IO and Socket.IO server."""

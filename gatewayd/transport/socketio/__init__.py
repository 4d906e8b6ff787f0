"""Engine.IO 4 and Socket.IO 5, the side of the server."""

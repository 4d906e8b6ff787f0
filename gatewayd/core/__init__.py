"""What the gateway does: no wire format, no SQL, no sockets."""

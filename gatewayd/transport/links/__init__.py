"""The sockets of links: bytes and datagrams between clients and devices, as fast as both can."""

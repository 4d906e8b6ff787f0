"""The two ends of a link, both in this process: a client, and the device that it leads to."""

from __future__ import annotations

import random
import socket
import struct
import threading
from hashlib import sha256

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from benchmarks.daemon import KIB, PATIENCE

HOST = "127.0.0.1"
_LARGEST = 1400


class Ends:
    """A device that listens on TCP and UDP; a context manager that closes its sockets."""

    def __init__(self) -> None:
        self._tcp = socket.create_server((HOST, 0), backlog=512)
        self._udp = socket.socket(type=socket.SOCK_DGRAM)
        self._udp.bind((HOST, 0))
        self._tcp.settimeout(PATIENCE)
        self._udp.settimeout(PATIENCE)

    def __enter__(self) -> Ends:
        return self

    def __exit__(self, *_: object) -> None:
        self._tcp.close()
        self._udp.close()

    def port(self, protocol: str) -> int:
        """Return the device's port."""
        port: int = (self._tcp if protocol == "tcp" else self._udp).getsockname()[1]
        return port

    def accept(self) -> socket.socket:
        """Return the device's side of the connection that comes next."""
        accepted, _ = self._tcp.accept()
        accepted.settimeout(PATIENCE)
        return accepted

    def datagrams(
        self, port: int, count: int, together: int, choose: random.Random, secret: bytes | None
    ) -> int | None:
        """Send packets of any size to the device and back; return how many bytes went each way.

        :param together: how many are on their way at one time.
        :param secret: key and initialization vector of the client's side; None: it is plain.
        :returns: None if anything was lost or changed.
        """
        sent, at_device, back = sha256(), sha256(), sha256()
        size = 0
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE)
            client.connect((HOST, port))
            for _ in range(count // together):
                for _ in range(together):
                    data = choose.randbytes(choose.randint(1, _LARGEST))
                    size += len(data)
                    sent.update(data)
                    client.send(_cipher(secret, data) if secret else data)
                try:
                    for _ in range(together):
                        data, sender = self._udp.recvfrom(64 * KIB)
                        at_device.update(data)
                        self._udp.sendto(data, sender)
                    for _ in range(together):
                        data = client.recv(64 * KIB)
                        back.update(_cipher(secret, data) if secret else data)
                except TimeoutError:
                    return None
        same = sent.digest() == at_device.digest() == back.digest()
        return size if same else None


def _cipher(secret: bytes, data: bytes) -> bytes:
    """Encrypt or decrypt a packet: each begins at the initialization vector."""
    return Cipher(algorithms.AES(secret[:32]), modes.CTR(secret[32:])).encryptor().update(data)


def pair_up(port: int, ends: Ends) -> tuple[socket.socket, socket.socket]:
    """Connect to a link; return the sockets of the client and of the device."""
    client = socket.create_connection((HOST, port), PATIENCE)
    return client, ends.accept()


def transfer(data: bytes, sender: socket.socket, receiver: socket.socket) -> bytes:
    """Send data and end that direction; return the digest of what arrives until its end."""
    sending = threading.Thread(target=_send_all, args=(sender, data))
    sending.start()
    digest = sha256()
    while received := receiver.recv(256 * KIB):
        digest.update(received)
    sending.join()
    return digest.digest()


def _send_all(sender: socket.socket, data: bytes) -> None:
    sender.sendall(data)
    sender.shutdown(socket.SHUT_WR)


def reset(connection: socket.socket) -> None:
    """Close a connection so that its peer is told of a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()

"""The ciphers of links, against OpenSSL, Node and a client made from their description."""

from __future__ import annotations

import shutil
import subprocess
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gatewayd.core.line import Cipher, Encryption
from gatewayd.transport.links import cipher as ciphers
from gatewayd.transport.links.cipher import (
    RECORD,
    TAG,
    WINDOW,
    InPlace,
    KeysSpent,
    ReplayWindow,
    StreamCiphers,
    Transform,
    datagram_cipher,
)
from tests.transport.sealed import AUTHENTIC, IV, KEY, TOKEN, Direction, counter_mode, encryption

TEXT = b"what a client sends"
#: Made by Node: what KEY, IV and TOKEN make of TEXT. A stream is a record of it and the end.
CTR_VECTOR = "16cef21a6eee307f70a89cfdc162d3b1ddd683"
MATERIAL = {
    "c2d": "f8f3b0ffe58d8517365b4a6f140cb55ae649d7514e6ccc0094698c8f522f2977"
    "91e3d09ad89830750027a370",
    "d2c": "a9c4e2fc1d221b64939ade5126b7891ea4e51ee2766fba07c250e2159ee0d8f5"
    "b2be00e68fd2712050f3bad8",
}
STREAMS = {
    (Cipher.GCM, "c2d"): "0013b54a9ae403b0f3d6bcd45c3df21abde9b427f6c578f8638ba5eeb2"
    "604da03e95975a7400006d1cd2db72ad9777c6640562eff97d1f",
    (Cipher.GCM, "d2c"): "00132e4fe0ad663177c6e61ea05bf230155d6ee0099f90994883d13e84"
    "ca5614c9b6b63063000089d3728d3dcd7b89b675c487bc0207b0",
    (Cipher.CHACHA, "c2d"): "00138f25fe18fbf29f6ad5d8733881fa6195cc1bf957af68b920d5e6db"
    "ce6aa118bd359c240000f77b1a698d10e4f84c4b6772e43e1c05",
    (Cipher.CHACHA, "d2c"): "00138c5d7a7dda2112897b4c2154ed9d9db9d47435deeabdad8e939bb6"
    "6672d1bce6df6b7c0000330c15ed55989100bba9f960dc320ec2",
}
DATAGRAMS = {  # with the number 258 from the client, 0 to it
    (Cipher.GCM, "c2d"): "0000000000000102a454ca95a29319a725b108706c279a5b557928"
    "3513acbadade39d3f69a562516dd7a81",
    (Cipher.GCM, "d2c"): "00000000000000002e4fe0ad663177c6e61ea05bf230155d6ee009"
    "9683bb71e55629a126afebb018a2e7ca",
    (Cipher.CHACHA, "c2d"): "0000000000000102b7eb629fdf40699e382c89c5a1daf3738ec14c"
    "62c9774603d02ae6472008f7bb48364d",
    (Cipher.CHACHA, "d2c"): "00000000000000008c5d7a7dda2112897b4c2154ed9d9db9d47435"
    "cc52995502344f67e606289eb97aca89",
}

NODE = """
const [,, cipher, key, iv, material, text] = process.argv.map(String)
const crypto = require('crypto'), bytes = (hex) => Buffer.from(hex, 'hex')
if (cipher === 'aes-256-ctr') {
  const running = crypto.createCipheriv(cipher, bytes(key), bytes(iv))
  console.log(running.update(bytes(text)).toString('hex'))
} else {
  const derived = crypto.hkdfSync('sha256', bytes(key), bytes(iv), material, 44)
  const all = Buffer.from(derived), length = Buffer.alloc(2), out = []
  ;[bytes(text), Buffer.alloc(0)].forEach((content, number) => {
    const nonce = Buffer.from(all.subarray(32))
    nonce[11] ^= number
    const sealing = crypto.createCipheriv(
      cipher, all.subarray(0, 32), nonce, { authTagLength: 16 })
    length.writeUInt16BE(content.length)
    out.push(Buffer.from(length), sealing.update(content), sealing.final(), sealing.getAuthTag())
  })
  console.log(Buffer.concat(out).toString('hex'))
}
"""

chunks = st.lists(st.binary(max_size=70), max_size=12)
texts = st.binary(max_size=600)
authentic = st.sampled_from(AUTHENTIC)
numbers = st.integers(0, 5) | st.integers(0, 3000) | st.just(2**40 - 1)


def view(data: bytes) -> memoryview:
    return memoryview(bytearray(data))


def up(cipher: Cipher) -> Transform:
    return StreamCiphers(encryption(cipher)).transforms().up


def down(cipher: Cipher) -> Transform:
    return StreamCiphers(encryption(cipher)).transforms().down


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut *data* at these places."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:stop] for start, stop in pairwise(places)]


def run(tool: str, *arguments: str, data: bytes = b"") -> bytes:
    """Run a program that may not be there."""
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"{tool} is not installed")
    return subprocess.run([found, *arguments], input=data, capture_output=True, check=True).stdout


# Counter mode


def test_counter_mode_vector() -> None:
    """Both directions begin at the key and the IV, and encrypt as Node and OpenSSL do."""
    for transform in StreamCiphers(encryption(Cipher.CTR)).transforms():
        assert transform.encode(view(TEXT)).hex() == CTR_VECTOR
        assert transform.finish() == b""


@given(chunks, st.sampled_from([IV, b"\xff" * 16]))
@example([b"x" * 40, b"", b"y" * 17], b"\xff" * 16)
def test_counter_mode_is_one_stream(parts: list[bytes], iv: bytes) -> None:
    """However a stream is cut, in place or not, it is the same; the counter may overflow."""
    pair = StreamCiphers(encryption(Cipher.CTR, iv=iv)).transforms()
    copied = b"".join(pair.up.encode(view(part)) for part in parts)
    assert isinstance(pair.down, InPlace)
    buffers = [view(part) for part in parts]
    for buffer in buffers:
        pair.down.update_into(buffer)
    assert copied == b"".join(buffers) == counter_mode(b"".join(parts), iv=iv)


def test_counter_mode_of_many_connections() -> None:
    """Each connection of a link begins anew."""
    link = StreamCiphers(encryption(Cipher.CTR))
    assert {link.transforms().up.encode(view(TEXT)).hex() for _ in range(3)} == {CTR_VECTOR}


@given(st.lists(texts, max_size=5))
def test_counter_mode_of_datagrams(parts: list[bytes]) -> None:
    """Each datagram is encrypted from the IV on, so that it needs none of the others."""
    cipher = datagram_cipher(encryption(Cipher.CTR))
    assert cipher.overhead == 0
    for part in parts:
        assert cipher.open(view(part)) == cipher.seal(view(part)) == counter_mode(part)


@pytest.mark.parametrize("size", [0, 1, 16, 100_000])
def test_openssl_understands(size: int) -> None:
    """OpenSSL's command decrypts what we encrypt, and we what it encrypts."""
    text = (TEXT * (size // len(TEXT) + 1))[:size]
    command = ("enc", "-aes-256-ctr", "-K", KEY.hex(), "-iv", IV.hex())
    sent = down(Cipher.CTR).encode(view(text))
    assert run("openssl", *command, "-d", data=sent) == text
    assert up(Cipher.CTR).encode(view(run("openssl", *command, data=text))) == text


@pytest.mark.parametrize("cipher", Cipher)
def test_node_understands(cipher: Cipher) -> None:
    """What a Node client sends, we open."""
    info = f"gatewayd/devicelink/1|{TOKEN.decode()}|c2d"
    arguments = (cipher.value, KEY.hex(), IV.hex(), info, TEXT.hex())
    sent = run("node", "-e", NODE, "-", *arguments)
    transform = up(cipher)
    assert transform.encode(view(bytes.fromhex(sent.decode()))) == TEXT
    assert transform.finish() == b""


# Records


@pytest.mark.parametrize("cipher", AUTHENTIC)
def test_record_vectors(cipher: Cipher) -> None:
    """Keys, nonces and records are as described."""
    for direction, material in MATERIAL.items():
        assert Direction(cipher, direction).material.hex() == material
    receiving, sending = StreamCiphers(encryption(cipher)).transforms()
    assert receiving.encode(view(bytes.fromhex(STREAMS[cipher, "c2d"]))) == TEXT
    assert receiving.finish() == b""
    assert (sending.encode(view(TEXT)) + sending.finish()).hex() == STREAMS[cipher, "d2c"]
    assert not isinstance(sending, InPlace)


@given(cipher=authentic, parts=chunks, cuts=st.lists(st.integers(0, 2000), max_size=10))
def test_records_arrive_however_they_are_cut(
    cipher: Cipher, parts: list[bytes], cuts: list[int]
) -> None:
    """What a client seals comes out, wherever the network cuts it, as soon as it is there."""
    client = Direction(cipher, "c2d")
    contents = [part for part in parts if part]
    stream = b"".join(client.record(*each) for each in enumerate([*contents, b""]))
    transform = up(cipher)
    assert b"".join(transform.encode(view(cut)) for cut in split(stream, cuts)) == b"".join(parts)
    assert transform.finish() == b""


@given(cipher=authentic, parts=chunks)
def test_records_are_sealed(cipher: Cipher, parts: list[bytes]) -> None:
    """A client gets what the device sent, and then a record that says so; nothing is no record."""
    transform = down(cipher)
    stream = b"".join(transform.encode(view(part)) for part in parts)
    contents = Direction(cipher, "d2c").records(stream + transform.finish())
    assert contents == [*(part for part in parts if part), b""]


def test_record_length() -> None:
    """Much at once becomes several records; one of the greatest length is taken."""
    transform = down(Cipher.GCM)
    sent = Direction(Cipher.GCM, "d2c").records(transform.encode(view(b"x" * (2 * RECORD + 5))))
    assert [len(content) for content in sent] == [RECORD, RECORD, 5]
    longest = Direction(Cipher.GCM, "c2d").record(0, b"y" * RECORD)
    receiving = up(Cipher.GCM)
    assert receiving.encode(view(longest[:-1])) == b""
    assert receiving.encode(view(longest[-1:])) == b"y" * RECORD


def test_record_too_long() -> None:
    """A longer one is refused by its length, before its content is waited for."""
    with pytest.raises(ValueError, match="too long"):
        up(Cipher.GCM).encode(view((RECORD + 1).to_bytes(2, "big")))


@given(cipher=authentic, data=st.data())
def test_record_changed(cipher: Cipher, data: st.DataObject) -> None:
    """No bit of a stream can be changed: it breaks, or waits for more and ends as cut off."""
    client = Direction(cipher, "c2d")
    stream = bytearray(client.record(0, TEXT) + client.record(1, b""))
    place = data.draw(st.integers(0, 8 * len(stream) - 1))
    stream[place // 8] ^= 1 << place % 8
    transform = up(cipher)
    with pytest.raises(ValueError, match=r"not authentic|too long|cut off|more after"):
        assert transform.encode(memoryview(stream)) in (b"", TEXT)
        transform.finish()


@pytest.mark.parametrize("cipher", AUTHENTIC)
def test_record_out_of_order(cipher: Cipher) -> None:
    """A record that is repeated, left out, or from the other direction is not taken."""
    client = Direction(cipher, "c2d")
    first, second = client.record(0, b"one"), client.record(1, b"two")
    for wrong in (first + first, second, Direction(cipher, "d2c").record(0, b"one")):
        with pytest.raises(ValueError, match="not authentic"):
            up(cipher).encode(view(wrong))


@given(cipher=authentic, cut=st.integers(0, 2 + 5 + TAG + 2 + TAG - 1))
def test_stream_cut_off(cipher: Cipher, cut: int) -> None:
    """A stream that stops anywhere before its last record has ended is not whole."""
    client = Direction(cipher, "c2d")
    stream = client.record(0, b"hello") + client.record(1, b"")
    transform = up(cipher)
    transform.encode(view(stream[:cut]))
    with pytest.raises(ValueError, match="cut off"):
        transform.finish()


def test_more_after_the_end() -> None:
    """Nothing may follow the last record, be it only one byte, at once or later."""
    client = Direction(Cipher.GCM, "c2d")
    with pytest.raises(ValueError, match="more after"):
        up(Cipher.GCM).encode(view(client.record(0, b"") + b"\0"))
    transform = up(Cipher.GCM)
    assert transform.encode(view(client.record(0, b""))) == b""
    assert transform.encode(view(b"")) == b""
    with pytest.raises(ValueError, match="more after"):
        transform.encode(view(client.record(1, b"x")))


@pytest.mark.parametrize("cipher", AUTHENTIC)
def test_one_connection(cipher: Cipher) -> None:
    """A second connection would seal with the same nonces: there is none."""
    link = StreamCiphers(encryption(cipher))
    link.transforms()
    with pytest.raises(KeysSpent):
        link.transforms()


def test_keys_wear_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key seals and opens so many records and datagrams, and not one more."""
    monkeypatch.setattr(ciphers, "NUMBERS", 2)
    client = Direction(Cipher.GCM, "c2d")
    receiving, sending = StreamCiphers(encryption(Cipher.GCM)).transforms()
    assert len(sending.encode(view(b"a")) + sending.encode(view(b"b"))) == 2 * (3 + TAG)
    with pytest.raises(ValueError, match="worn out"):
        sending.encode(view(b"c"))
    assert receiving.encode(view(client.record(0, b"a") + client.record(1, b"b"))) == b"ab"
    with pytest.raises(ValueError, match="worn out"):
        receiving.encode(view(client.record(2, b"c")))
    datagrams = datagram_cipher(encryption(Cipher.GCM))
    sealed = [datagrams.seal(view(TEXT)) for _ in range(3)]
    assert [each is None for each in sealed] == [False, False, True]
    opened = [datagrams.open(view(client.datagram(number, TEXT))) for number in (1, 2)]
    assert opened == [TEXT, None]


# Datagrams


@pytest.mark.parametrize("cipher", AUTHENTIC)
def test_datagram_vectors(cipher: Cipher) -> None:
    """Datagrams are as described."""
    link = datagram_cipher(encryption(cipher))
    assert link.open(view(bytes.fromhex(DATAGRAMS[cipher, "c2d"]))) == TEXT
    assert link.seal(view(TEXT)) == bytes.fromhex(DATAGRAMS[cipher, "d2c"])


@given(cipher=authentic, parts=st.lists(texts, max_size=6))
def test_datagrams_are_sealed(cipher: Cipher, parts: list[bytes]) -> None:
    """The client gets each datagram with the next number, empty ones too."""
    link, client = datagram_cipher(encryption(cipher)), Direction(cipher, "d2c")
    for number, part in enumerate(parts):
        sealed = link.seal(view(part))
        assert sealed is not None
        assert len(sealed) == len(part) + link.overhead
        assert client.opened(sealed) == (number, part)


@given(
    cipher=authentic,
    numbers=st.lists(st.integers(0, 5) | st.integers(0, 3000) | st.just(2**40 - 1)),
)
def test_datagrams_are_opened_once(cipher: Cipher, numbers: list[int]) -> None:
    """In any order each number is taken once, if it is not too far behind the greatest."""
    link, client = datagram_cipher(encryption(cipher)), Direction(cipher, "c2d")
    seen: set[int] = set()
    for number in numbers:
        fresh = number not in seen and number > max(seen, default=0) - WINDOW
        expected = b"%d" % number if fresh else None
        assert link.open(view(client.datagram(number, b"%d" % number))) == expected
        seen |= {number} if fresh else set()


@given(st.lists(st.integers(0, 4 * WINDOW), max_size=60), st.integers(-2, 2))
def test_window(numbers: list[int], near: int) -> None:
    """The window agrees with a plain set of what was seen, at its edge too."""
    window, seen = ReplayWindow(), set[int]()
    for number in numbers:
        for each in (number, max(0, max(seen, default=0) - WINDOW + near)):
            expected = each not in seen and each > max(seen, default=-1) - WINDOW
            assert window.is_new(each) == expected
            if expected:
                window.add(each)
                seen.add(each)
                assert not window.is_new(each)


@given(cipher=authentic, data=st.data())
def test_datagram_changed(cipher: Cipher, data: st.DataObject) -> None:
    """A datagram with any bit changed or cut short is dropped, and takes no number away."""
    link = datagram_cipher(encryption(cipher))
    good = Direction(cipher, "c2d").datagram(7, TEXT)
    changed = bytearray(good)
    place = data.draw(st.integers(0, 8 * len(good) - 1))
    changed[place // 8] ^= 1 << place % 8
    assert link.open(memoryview(changed)) is None
    assert link.open(view(good[: data.draw(st.integers(0, len(good) - 1))])) is None
    assert link.open(view(Direction(cipher, "d2c").datagram(7, TEXT))) is None
    assert link.open(view(good)) == TEXT


# Keys


@pytest.mark.parametrize("cipher", Cipher)
@pytest.mark.parametrize(("key", "iv"), [(KEY[:16], IV), (KEY + b"x", IV), (KEY, IV[:12])])
def test_key_length(cipher: Cipher, key: bytes, iv: bytes) -> None:
    """A key of another length is refused; AES-128 is another cipher."""
    with pytest.raises(ValueError, match="a key has 32 bytes") as error:
        StreamCiphers(encryption(cipher, key, iv))
    assert key.hex() not in str(error.value)
    with pytest.raises(ValueError, match="a key has 32 bytes"):
        datagram_cipher(encryption(cipher, key, iv))


@pytest.mark.parametrize("cipher", AUTHENTIC)
def test_keys_differ_from_link_to_link(cipher: Cipher) -> None:
    """The same key and IV make other keys with another token."""
    other = datagram_cipher(Encryption(cipher, KEY, IV, b"another token"))
    assert other.open(view(Direction(cipher, "c2d").datagram(0, TEXT))) is None


@pytest.mark.parametrize("cipher", Cipher)
def test_no_key_is_shown(cipher: Cipher) -> None:
    """Nothing that is printed shows a key."""
    given = encryption(cipher)
    link = StreamCiphers(given)
    shown = repr((given, link, link.transforms(), datagram_cipher(given)))
    for secret in (KEY, IV, TOKEN):
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown

"""The envelope of attached devices: what they get, and what of their answers is understood."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gatewayd.core.exchange import Answer, Headers, Request
from gatewayd.device.envelope import Reply, content_type, is_form, pack, unpack
from gatewayd.errors import BadAnswer

PASSED = ("Content-Type", "Content-Disposition")
TEXT = (("Content-Type", "text/plain; charset=utf-8"),)


def asked(*headers: tuple[str, str], body: bytes | None = None, **fields: Any) -> Request:
    file = None if body is None else BytesIO(body)
    values = {"id": "1", "method": "GET", "query": "/", **fields}
    return Request(headers=headers, body=file, size=len(body or b""), **values)


def packed(body: bytes, type_: str | None = None, **options: Any) -> Any:
    headers = () if type_ is None else (("Content-Type", type_),)
    return json.loads(pack(asked(*headers, body=body), body, **options))


def read(result: object) -> Answer:
    """Return the answer in a result, which may be JSON already."""
    text = result if isinstance(result, bytes) else json.dumps(result).encode()
    reply = unpack(text, PASSED)
    assert reply.blob is None
    return reply.answer


def bad(result: object) -> str:
    with pytest.raises(BadAnswer) as caught:
        read(result)
    return str(caught.value)


# Requests


def test_request() -> None:
    """A request is compact JSON with the members of the contract, and no other."""
    request = asked(
        ("Accept", "a/b, c/d"), ("Content-Type", "text/plain"), body=b"h\xc3\xa9", method="PUT",
        query="/x?y=1#z",
    )  # fmt: skip
    assert pack(request, b"h\xc3\xa9").decode() == (
        '{"path":"/x?y=1#z","method":"PUT","headers":{"Accept":"a/b, c/d",'
        '"Content-Type":"text/plain","Content-Length":3},"body":"hé"}'
    )


def test_request_without_body() -> None:
    """Without a body there is none, nor a length; without header fields, an empty object."""
    assert pack(asked(query="//anything, really")) == (
        b'{"path":"//anything, really","method":"GET","headers":{}}'
    )


def test_request_elsewhere() -> None:
    """A body that is fetched is not inside, but its length and type are told."""
    request = asked(("Content-Type", "a/b"), body=b"abc")
    assert json.loads(pack(request, blob="http://gw/1", upload="http://gw/2")) == {
        "path": "/", "method": "GET", "headers": {"Content-Type": "a/b", "Content-Length": 3},
        "blobUrl": "http://gw/1", "uploadUrl": "http://gw/2",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("type_", "body", "text"),
    [
        (None, "aé€😀".encode(), "aé€😀"),
        ("text/plain", b"\xff\xfe\x00", "��\x00"),
        ("text/plain; charset=iso-8859-1", b"\xe9", "é"),
        ('text/plain;CHARSET="UTF-16LE"', "é".encode("utf-16-le"), "é"),
        ("text/plain; format=flowed; charset = windows-1252", b"\x80", "€"),
        ("text/plain; charset=unheard-of", "é".encode(), "é"),
        ("text/plain; charset=zlib", "é".encode(), "é"),
        ("text/plain; charset=utf-7", b"+2AA-", "+2AA-"),
        ("text/plain; charset=", b"x", "x"),
    ],
)
def test_request_text(type_: str | None, body: bytes, text: str) -> None:
    """A body is text in the charset of its type, or UTF-8; what is no such text is lost."""
    found = packed(body, type_)
    assert found["body"] == text
    assert found["headers"]["Content-Length"] == len(body)
    assert "bodyEncoding" not in found


def test_request_base64() -> None:
    """A device that wants base64 gets every body so, whatever its type."""
    for type_ in (None, "text/plain", "application/octet-stream"):
        found = packed(bytes(range(256)), type_, base64=True)
        assert base64.b64decode(found["body"]) == bytes(range(256))
        assert found["bodyEncoding"] == "base64"
    assert "bodyEncoding" not in json.loads(pack(asked(), base64=True))


def test_request_header_bytes() -> None:
    """Header fields are read as UTF-8 where they are, else as Latin-1."""
    values = {"A": "é".encode().decode("latin-1"), "B": "\xe9"}
    found = json.loads(pack(asked(*values.items())))
    assert found["headers"] == {"A": "é", "B": "é"}


@given(st.binary(max_size=200), st.text(max_size=40), st.booleans())
@example(b"\xd8\x00", "x; charset=utf-16-be", False)
def test_request_any(body: bytes, charset: str, encoded: bool) -> None:
    """Any body of any type can be packed."""
    type_ = f"text/plain; charset={charset}".encode().decode("latin-1")
    assert isinstance(packed(body, type_, base64=encoded)["body"], str)


def test_forms() -> None:
    """Forms are known by their type, whatever its case and parameters."""

    def headers(type_: str) -> Headers:
        return (("Accept", "multipart/form-data"), ("content-type", type_))

    for type_ in (
        "application/x-www-form-urlencoded",
        "Application/X-WWW-Form-Urlencoded ; charset=utf-8",
        "multipart/form-data; boundary=x",
    ):
        assert is_form(headers(type_))
    for type_ in ("multipart/mixed", "text/plain", "", "x/multipart/form-data"):
        assert not is_form(headers(type_))
    assert content_type(headers("a/b")) == "a/b"
    assert content_type(()) == ""


# Answers


def test_answer() -> None:
    """Status, the two header fields and the body are passed back, other header fields are not."""
    answer = read(
        {
            "status": 201,
            "headers": {"Content-Type": "text/html", "Content-Disposition": "inline", "X": "y"},
            "body": "<p>é",
        }
    )
    assert answer == Answer(
        status=201,
        headers=(("Content-Type", "text/html"), ("Content-Disposition", "inline")),
        body="<p>é".encode(),
    )


def test_answer_of_nothing() -> None:
    """An answer that says nothing is 200, an empty text."""
    assert read({}) == Answer(status=200, headers=TEXT, body=b"")
    nothing = {"status": None, "headers": None, "body": None, "blobUrl": None, "bodyEncoding": None}
    assert read(nothing) == Answer(status=200, headers=TEXT, body=b"")


def test_answer_in_a_text() -> None:
    """JSON in a JSON string is read once more, not twice."""
    inner = json.dumps({"status": 202, "body": 'é"\n'})
    assert read(json.dumps(inner).encode()) == read(inner.encode())
    assert "within" in bad(json.dumps(inner))
    assert read(json.dumps({"body": {"x": 1}})).body == b'{"x":1}'


def test_case() -> None:
    """The case of members and header fields does not count."""
    answer = read(
        {"STATUS": 404, "Headers": {"CONTENT-type": "a/b", "content-DISPOSITION": "x"}, "BODY": "y"}
    )
    assert (answer.status, answer.body) == (404, b"y")
    assert answer.headers == (("Content-Type", "a/b"), ("Content-Disposition", "x"))
    assert read({"bodyencoding": "Base64", "body": "eA=="}).body == b"x"
    assert unpack(b'{"BLOBURL":"u"}', PASSED).blob == "u"


@pytest.mark.parametrize(
    ("envelope", "status"),
    [
        ({"status": 200}, 200),
        ({"status": 599}, 599),
        ({"status": "404"}, 404),
        ({"headers": {"Status": 503}}, 503),
        ({"headers": {"status": "503"}}, 503),
        ({"status": 404, "headers": {"Status": 503}}, 404),
        ({"status": None, "headers": {"Status": 503}}, 503),
        ({"status": 404, "headers": {"Status": "nonsense"}}, 404),
    ],
)
def test_status(envelope: object, status: int) -> None:
    """The status at the top wins over the one among the header fields; digits are a number."""
    assert read(envelope).status == status


@pytest.mark.parametrize(
    "status",
    [0, 99, 100, 101, 199, 600, -200, 10**30, 200.0, 200.5, True, "", "ok", "20", " 200", "٢٠٠",
     "2e2", [], [200], {}],
)  # fmt: skip
def test_bad_status(status: object) -> None:
    """What is no final HTTP status is no answer, wherever it stands."""
    assert bad({"status": status})
    assert bad({"headers": {"Status": status}})


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (b'"text"', b"text"),
        (b'""', b""),
        (b'"\\u00e9\\n"', "é\n".encode()),
        (b'  "x"  ', b"x"),
        (b'{ "b" : [ 1 , 2 ] , "a" : { } }', b'{"b":[1,2],"a":{}}'),
        (b'[ 1.50 , 1e400 , 123456789012345678901234567890, "\xc3\xa9 x" ]',
         b'[1.50,1e400,123456789012345678901234567890,"\xc3\xa9 x"]'),
        (b"[]", b"[]"),
        (b"12.0", b"12.0"),
        (b"true", b"true"),
        (b"false", b"false"),
        (b" null ", b""),
    ],
)  # fmt: skip
def test_body(body: bytes, sent: bytes) -> None:
    """A text is sent as it is, everything else as compact JSON with the numbers as they were."""
    answer = read(b'{"body":' + body + b"}")
    assert answer == Answer(status=200, headers=TEXT, body=sent)


@pytest.mark.parametrize(
    ("type_", "sent"),
    [
        ("text/plain", "é€".encode()),
        ("text/plain; charset=utf-8", "é€".encode()),
        ("text/plain; charset=ISO-8859-1", b"\xe9?"),
        ('text/plain; charset="windows-1252"', b"\xe9\x80"),
        ("text/plain; charset=utf-16be", "é€".encode("utf-16-be")),
    ],
)
def test_charset(type_: str, sent: bytes) -> None:
    """A text is sent in the charset that its type names; what it has not becomes a mark."""
    for body in ("é€", ["é€"]):
        envelope = {"headers": {"Content-Type": type_}, "body": body}
        answer = read(json.dumps(envelope, ensure_ascii=False).encode())
        assert isinstance(answer.body, bytes)
        assert sent in answer.body
        assert answer.headers == (("Content-Type", type_),)


def test_bad_charset() -> None:
    """A text in a charset that nobody knows is no answer; bytes are nobody's business."""
    headers = {"Content-Type": "text/plain; charset=unheard-of"}
    assert "charset" in bad({"headers": headers, "body": "x"})
    assert read({"headers": headers, "body": "eA==", "bodyEncoding": "base64"}).body == b"x"
    assert read({"headers": headers}).body == b""


def test_base64() -> None:
    """A body may be base64, and is passed back as the bytes that it stands for."""
    everything = bytes(range(256))
    body = base64.b64encode(everything).decode()
    headers = {"Content-Type": "image/png"}
    answer = read({"headers": headers, "body": body, "bodyEncoding": "base64"})
    assert (answer.body, answer.headers) == (everything, (("Content-Type", "image/png"),))
    assert read({"body": "", "bodyEncoding": "base64"}).body == b""
    assert read({"body": None, "bodyEncoding": "base64"}).body == b""


@pytest.mark.parametrize(
    "envelope",
    [
        {"body": "x", "bodyEncoding": "base64"},
        {"body": "e A==", "bodyEncoding": "base64"},
        {"body": "eA==é", "bodyEncoding": "base64"},
        {"body": {"x": 1}, "bodyEncoding": "base64"},
        {"body": 1234, "bodyEncoding": "base64"},
        {"body": "x", "bodyEncoding": "gzip"},
        {"body": "x", "bodyEncoding": 64},
        {"headers": []},
        {"headers": "Content-Type: text/plain"},
        {"headers": {"Content-Type": 1}},
        {"headers": {"Content-Disposition": ["inline"]}},
        {"headers": {"Content-Type": "a/b\r\nSet-Cookie: x"}},
        {"headers": {"Content-Disposition": "a\x00b"}},
        {"headers": {"Content-Disposition": "a\x7fb"}},
        {"headers": {"Content-Disposition": "a\x85b"}},
        {"blobUrl": 1},
        {"blobUrl": {}},
    ],
)
def test_bad_members(envelope: object) -> None:
    """A member of another kind, or that breaks a header field, makes it no answer."""
    assert bad(envelope)


@pytest.mark.parametrize(
    "result",
    [
        b"", b"null", b"true", b"1", b"[]", b'""', b'"x"', b'"[]"', b"{", b"{}x", b"\xef\xbb\xbf{}",
        b"\xff", b'{"\xff":1}', b'{"body":"\xff"}', b'{"body":["\xff"]}', b'{"body":"\\ud800"}',
        b'{"body":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"[" * 100_000, b'{"status":' + b"9" * 10_000 + b"}",
    ],
    ids=lambda result: result[:20].decode("latin-1"),
)  # fmt: skip
def test_no_envelope(result: bytes) -> None:
    """What is no JSON object is no answer, however it is broken."""
    assert bad(result)


def test_no_result() -> None:
    """A command without a result has no answer."""
    with pytest.raises(BadAnswer):
        unpack(None, PASSED)


def test_header_text() -> None:
    """Header fields are stripped, an empty one is none, and what is not ASCII goes as UTF-8."""
    headers = {"Content-Type": " ", "Content-Disposition": ' attachment; filename="é€" '}
    answer = read({"headers": headers})
    assert answer.headers[0] == TEXT[0]
    name, value = answer.headers[1]
    assert (name, value.encode("latin-1")) == (
        "Content-Disposition",
        'attachment; filename="é€"'.encode(),
    )


def test_passed() -> None:
    """Which header fields are passed back is the operator's choice."""
    result = (
        b'{"headers":{"etag":"1","content-type":"text/plain;charset=latin-1"},"body":"\xc3\xa9"}'
    )
    answer = unpack(result, ("ETag",)).answer
    assert (answer.headers, answer.body) == ((("ETag", "1"),), b"\xe9")
    assert unpack(result, ()).answer.headers == ()


def test_blob() -> None:
    """The body may be at a URL, which wins over one inside."""
    found = unpack(b'{"status":206,"blobUrl":"http://x/","body":"y"}', PASSED)
    assert found == Reply(answer=Answer(status=206, headers=TEXT, body=b""), blob="http://x/")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
envelopes = st.fixed_dictionaries(
    {},
    optional={
        "status": json_values | st.integers(190, 610) | st.sampled_from(["200", "404"]),
        "Headers": json_values
        | st.dictionaries(
            st.sampled_from(["Status", "status", "Content-Type", "content-disposition", "X"]),
            json_values | st.sampled_from([200, "a/b; charset=utf-16", "a/b; charset=latin-1"]),
        ),
        "body": json_values,
        "bodyEncoding": st.sampled_from([None, "base64", "x"]),
        "blobUrl": st.none() | st.text(),
    },
)


def check(result: bytes) -> None:
    try:
        reply = unpack(result, PASSED)
    except BadAnswer:
        return
    assert 200 <= reply.answer.status <= 599
    assert isinstance(reply.answer.body, bytes)
    for name, value in reply.answer.headers:
        assert name in PASSED
        assert b"\n" not in value.encode("latin-1")


@given(envelopes, st.booleans())
def test_any_envelope(envelope: Any, within: bool) -> None:
    """Whatever the members are, there is an answer that can be sent, or it is a bad one."""
    text = json.dumps(envelope, ensure_ascii=False)
    check((json.dumps(text) if within else text).encode("utf-8", "surrogatepass"))
    check(json.dumps(envelope).encode())


@given(st.binary(max_size=100))
def test_any_bytes(result: bytes) -> None:
    """Whatever the bytes are, reading them ends with an answer or a bad one."""
    check(result)
    check(b'{"body":' + result + b"}")

"""The settings of relayed requests: the Cloud Relay, and the tokens that open it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from gatewayd.configuration.section import (
    DAY,
    GIB,
    HOUR,
    KIB,
    MIB,
    MINUTE,
    BaseUrl,
    DeviceIds,
    Duration,
    FileName,
    HttpsUrl,
    Networks,
    Ports,
    RequestHeaders,
    ResponseHeaders,
    Secret,
    Section,
    Size,
    TextFile,
    Texts,
    Url,
)


class Issuer(Section, frozen=True):
    """One `[[cloudrelay.issuer]]` table per identity provider whose tokens open the Cloud Relay."""

    issuer: Annotated[
        Url, Meta(description="What its tokens say in `iss`, to the letter; once among all tables.")
    ]
    audience: Annotated[
        Texts,
        Meta(
            description="What the tokens must say in `aud`; one of these is enough.",
            examples=[["api://relay"]],
        ),
    ]
    jwks_url: Annotated[
        HttpsUrl | None,
        Meta(
            description="Where the provider publishes its keys (a JWKS). `http:` only on this "
            "machine. This or `jwks_file` is required, not both."
        ),
    ] = None
    jwks_file: Annotated[
        TextFile | None,
        Meta(
            description="A file that holds the keys (a JWKS), looked up like that of a secret and "
            "read at the start."
        ),
    ] = None
    algorithms: Annotated[
        Annotated[list[Literal["RS256", "ES256", "PS256"]], Meta(min_length=1)],
        Meta(description="How its tokens may be signed."),
    ] = field(default_factory=lambda: ["RS256"])
    roles_any: Annotated[
        list[str],
        Meta(
            description="What a token needs in `roles`, any of them; nothing when empty.",
            examples=[["relay.call"]],
        ),
    ] = []
    scopes_all: Annotated[
        list[str],
        Meta(
            description="What a token needs in `scp`, all of them, where `roles_any` is empty; "
            "nothing when this is empty, too.",
            examples=[["relay"]],
        ),
    ] = []
    leeway: Annotated[
        Duration,
        Meta(
            description="By how much the provider's clock may differ from the gateway's.",
            le=10 * MINUTE,
        ),
    ] = 5 * MINUTE
    devices: Annotated[
        DeviceIds, Meta(description='The ids of the devices that its tokens reach; `"*"` is all.')
    ] = field(default_factory=lambda: ["*"])


class CloudRelay(Section, frozen=True):
    """The Cloud Relay API: what of a request reaches a device, and what it may take."""

    response_timeout: Annotated[
        Duration,
        Meta(
            description="How long a device may take to answer, when a request does not say.",
            ge=5.0,
            le=5 * MINUTE,
        ),
    ] = 30.0
    body: Annotated[Size, Meta(description="The body of a relayed request.", ge=1)] = 200 * MIB
    spool: Annotated[
        Size,
        Meta(
            description="What the bodies of all relayed requests together may take on disk.", ge=1
        ),
    ] = GIB
    inline: Annotated[
        Size,
        Meta(
            description="What is passed on to an attached device inside the command, and back in "
            "its answer.",
            ge=1,
        ),
    ] = 128 * KIB
    body_idle: Annotated[
        Duration, Meta(description="How long a body may stand still.", ge=0.001)
    ] = 60.0
    connect_timeout: Annotated[
        Duration, Meta(description="How long connecting to an HTTP device may take.", ge=0.001)
    ] = 4.0
    in_flight: Annotated[
        int, Meta(description="Requests that one device is sent at one time.", ge=1)
    ] = 8
    queued: Annotated[
        int, Meta(description="Requests to one device that wait for others to end.", ge=0)
    ] = 32
    rate: Annotated[
        int,
        Meta(
            description="Requests per second of one principal; bursts may have twice as many.", ge=1
        ),
    ] = 200
    request_headers: Annotated[
        RequestHeaders,
        Meta(
            description="The header fields of a request that are passed on to the device, besides "
            "`Content-Length`."
        ),
    ] = field(default_factory=lambda: ["Accept", "Content-Type", "Content-Disposition"])
    response_headers: Annotated[
        ResponseHeaders,
        Meta(
            description="The header fields of an answer that are passed back, besides "
            "`Content-Length`."
        ),
    ] = field(default_factory=lambda: ["Content-Type", "Content-Disposition", "Content-Encoding"])
    allowed_device_nets: Annotated[
        Networks | None,
        Meta(
            description="Where HTTP devices may be. Loopback and link-local addresses count only "
            "if a network has nothing else. Without it, no HTTP device can be reached."
        ),
    ] = None
    allowed_device_ports: Annotated[
        Ports | None, Meta(description="The ports of HTTP devices; without it, all.")
    ] = None
    public_url: Annotated[
        BaseUrl | None,
        Meta(
            description="The URL under which devices reach this gateway, to fetch bodies that are "
            "too large for a command; without it, the one to which the caller sent its request."
        ),
    ] = None
    results: Annotated[
        Duration,
        Meta(
            description="How long answers are kept for `Idempotency-Key` and `respond-async`.",
            ge=MINUTE,
        ),
    ] = 24 * HOUR
    patience: Annotated[
        Duration,
        Meta(description="How long a request with `respond-async` waits for its device.", ge=1.0),
    ] = HOUR
    issuer: Annotated[
        list[Issuer],
        Meta(description="Identity providers whose tokens are taken besides the gateway's own."),
    ] = []


class OAuthClient(Section, frozen=True):
    """One `[[oauth.client]]` table per program that may ask the gateway for a token (OAuth 2.0)."""

    id: Annotated[str, Meta(description="Its `client_id`; once among all tables.")]
    secret: Annotated[
        Secret | None,
        Meta(
            description="Its `client_secret`, at least 8 characters. This or `secret_file` is "
            "required."
        ),
    ] = None
    secret_file: Annotated[FileName | None, Meta(description="A file that holds the secret.")] = (
        None
    )
    actions: Annotated[
        Annotated[
            list[Literal["relay.call", "link.create", "link.read", "link.delete", "device.read"]],
            Meta(min_length=1),
        ],
        Meta(description="What its tokens allow."),
    ] = field(default_factory=lambda: ["relay.call"])
    devices: Annotated[
        DeviceIds, Meta(description='The ids of the devices that its tokens reach; `"*"` is all.')
    ] = field(default_factory=lambda: ["*"])


class OAuth(Section, frozen=True):
    """The tokens that the gateway itself gives to programs."""

    issuer: Annotated[
        Url | None,
        Meta(
            description="What these tokens say in `iss`; without it, the URL to which the program "
            "sent its request."
        ),
    ] = None
    audiences: Annotated[
        Texts | None,
        Meta(
            description="Whom these tokens may be for (`aud`): what a program may ask for, the "
            "first where it does not say; without it, anything.",
            examples=[["api://relay"]],
        ),
    ] = None
    token_lifetime: Annotated[
        Duration, Meta(description="How long such a token is valid.", ge=MINUTE, le=DAY)
    ] = HOUR
    rotation: Annotated[
        Duration,
        Meta(description="How long a key signs tokens until a new one takes over.", ge=DAY),
    ] = 90 * DAY
    client: Annotated[
        list[OAuthClient], Meta(description="The programs that may ask for tokens.")
    ] = []

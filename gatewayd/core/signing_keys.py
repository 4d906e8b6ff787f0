"""The keys with which the gateway signs OAuth2 tokens."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence

import attrs
import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jwt.algorithms import RSAAlgorithm
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from gatewayd.core.cluster import Change
from gatewayd.core.interfaces import Vault
from gatewayd.core.key_sets import PublicKey
from gatewayd.core.locks import Locks
from gatewayd.core.model import SigningKey
from gatewayd.core.passwords import RunInThread

ALGORITHM = "RS256"
_BITS = 2048
_EXPONENT = 65537
_CHECK_EVERY = 3600.0
#: ms for which an expired token may still be taken, by clocks that are late.
_LATE = 10 * 60 * 1000
_DAY = 86_400_000


@attrs.frozen(kw_only=True)
class Rotation:
    """When keys come and go. All times are ms.

    :ivar every: the age of a key at which the next one signs.
    :ivar overlap: for how long a key is published before it signs, so that whoever keeps a copy of
        the published keys has it in time; a day, unless keys come and go that quickly.
    :ivar lifetime: of the longest token that is signed.
    """

    every: int = 90 * _DAY
    overlap: int = attrs.field(
        default=attrs.Factory(lambda self: min(_DAY, self.every // 4), takes_self=True)
    )
    lifetime: int = 3600 * 1000


class _Key:
    """A key that is open, with what is published of it."""

    def __init__(self, kept: SigningKey, private: RSAPrivateKey) -> None:
        self.kid = kept.kid
        self.created = kept.created
        self.private = private
        self.public = PublicKey(kept.kid, private.public_key(), frozenset({ALGORITHM}))
        self.jwk = _jwk(private, kept.kid)


class SigningKeys:
    """Signs tokens, publishes the keys, and replaces them in time.

    A new key is made and published before the time of the old one is over. It signs once it has
    been published long enough. The old one goes when no token that it signed can be alive.

    As a :class:`~gatewayd.core.key_sets.KeySet` it is what verifies the gateway's own tokens.

    :param wall: the time of day in ms.
    """

    log = Logger()

    def __init__(
        self,
        vault: Vault,
        run_in_thread: RunInThread,
        wall: Callable[[], int],
        clock: IReactorTime,
        rotation: Rotation | None = None,
    ) -> None:
        self._vault = vault
        self._run = run_in_thread
        self._wall = wall
        self._rotation = rotation or Rotation()
        #: oldest first
        self._keys: list[_Key] = []
        self._changing = Locks()
        self._jws = jwt.PyJWS(algorithms=[ALGORITHM])
        self._checker = LoopingCall(self._check)
        self._checker.clock = clock

    async def start(self) -> None:
        """Open the keys, make the first one if there is none, and look after them from now on.

        :raises Unavailable: a new key cannot be kept.
        """
        await self.rotate()
        self._checker.start(_CHECK_EVERY, now=False)

    def stop(self) -> None:
        """Look after them no longer."""
        if self._checker.running:
            self._checker.stop()

    @property
    def lifetime(self) -> int:
        """How long, in ms, a token that is signed may live."""
        return self._rotation.lifetime

    def sign(self, claims: dict[str, object]) -> str:
        """Return a signed token."""
        key = self._signer()
        body = msgspec.json.encode(claims)
        return self._jws.encode(body, key.private, ALGORITHM, headers={"kid": key.kid})

    def jwks(self) -> list[dict[str, str]]:
        """Return the public keys as JWKs, oldest first."""
        return [key.jwk for key in self._keys]

    async def find(self, kid: str | None) -> Sequence[PublicKey]:
        """See :meth:`KeySet.find`; a token of the gateway names its key."""
        return self.peek(kid)

    def peek(self, kid: str | None) -> Sequence[PublicKey]:
        """See :meth:`KeySet.peek`."""
        return [key.public for key in self._keys if key.kid == kid]

    def holds(self, key: PublicKey) -> bool:
        """See :meth:`KeySet.holds`."""
        return any(each.public is key for each in self._keys)

    def _signer(self) -> _Key:
        """Return the newest key that was published long enough, else the oldest."""
        known_since = self._wall() - self._rotation.overlap
        return next((key for key in self._keys[::-1] if key.created <= known_since), self._keys[0])

    # Rotation

    async def rotate(self) -> None:
        """Make the key that is due, and drop those that have served.

        :raises Unavailable: a new key cannot be kept.
        """
        async with self._changing.hold(None):
            await self._rotate()

    async def _rotate(self) -> None:
        rotation = self._rotation
        await self._load()
        while len(self._keys) > 1:
            signs_since = self._keys[1].created + rotation.overlap
            if self._wall() < signs_since + rotation.lifetime + _LATE:
                break
            await self._vault.drop_signing_key(self._keys[0].kid)
            self.log.info("signing key {kid} has served", kid=self._keys.pop(0).kid)
        if self._keys:
            due = self._keys[-1].created + rotation.every - rotation.overlap
            if self._wall() < due:
                return
        await self._add()

    async def _load(self) -> None:
        """Have the keys that are kept: other nodes make and drop some, too."""
        opened = {key.kid: key for key in self._keys}
        keys: list[_Key] = []
        for kept in await self._vault.signing_keys():
            key = opened.get(kept.kid)
            if key is None:
                key = _Key(kept, await self._run(load_pem_private_key, kept.pem, None))
            keys.append(key)
        self._keys = keys

    async def changed(self, _: Change) -> None:
        """Know that another node has made or dropped a key. :raises Unavailable:"""
        async with self._changing.hold(None):
            await self._load()

    async def _add(self) -> None:
        private: RSAPrivateKey = await self._run(generate_private_key, _EXPONENT, _BITS)
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        kept = SigningKey(kid=thumbprint(_public_members(private)), pem=pem, created=self._wall())
        await self._vault.add_signing_key(kept)
        self._keys.append(_Key(kept, private))
        self.log.info("signing key {kid} is published", kid=kept.kid)

    def _check(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._rotate_or_log())

    async def _rotate_or_log(self) -> None:
        """Rotate; after a failure the keys stay, and the next check tries again."""
        try:
            await self.rotate()
        except Exception as error:
            self.log.error("the signing keys were not rotated: {error}", error=str(error))


def _public_members(private: RSAPrivateKey) -> dict[str, str]:
    jwk = RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
    return {name: str(jwk[name]) for name in ("e", "kty", "n")}


def thumbprint(members: dict[str, str]) -> str:
    """Return the name of a key (RFC 7638), which anybody finds from the key itself.

    :param members: of the public JWK: those that its type requires, and no others.
    """
    digest = hashlib.sha256(msgspec.json.encode(members, order="sorted")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _jwk(private: RSAPrivateKey, kid: str) -> dict[str, str]:
    return {**_public_members(private), "use": "sig", "alg": ALGORITHM, "kid": kid}

-- Relayed requests. The keys with which tokens are signed; pem: the private key, PKCS #8.
CREATE TABLE signing_key (
    kid TEXT PRIMARY KEY,
    pem BLOB NOT NULL,
    created INTEGER NOT NULL
);

-- What a device is told so that it lets the gateway in; ca: certificates, PEM.
CREATE TABLE device_login (
    uid INTEGER PRIMARY KEY REFERENCES device (uid) ON DELETE CASCADE,
    base_url TEXT NOT NULL,
    username TEXT,
    password TEXT,
    ca BLOB
);

-- Requests whose answers are kept until they expire. command: the seq of the command that carries
-- it; headers: a JSON list of pairs. The body is last: it is large, and seldom read.
CREATE TABLE relay_call (
    id TEXT PRIMARY KEY,
    principal TEXT NOT NULL,
    stream INTEGER NOT NULL REFERENCES device (uid) ON DELETE CASCADE,
    key TEXT,
    digest BLOB NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    command INTEGER,
    status INTEGER,
    headers BLOB NOT NULL,
    body BLOB
);
CREATE UNIQUE INDEX relay_call_key ON relay_call (principal, stream, key) WHERE key IS NOT NULL;
CREATE INDEX relay_call_stream ON relay_call (stream);
CREATE INDEX relay_call_expires ON relay_call (expires);

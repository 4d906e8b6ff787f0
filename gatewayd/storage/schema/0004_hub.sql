-- What is known of devices between their messages. A device's twin; see the core for its document.
CREATE TABLE twin (
    uid INTEGER PRIMARY KEY REFERENCES device (uid) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    document BLOB NOT NULL
);

-- What a device said last under each key, in which message: seq. value: JSON; NULL when it was
-- deleted. It is last: the other columns are read without it.
CREATE TABLE last_value (
    stream INTEGER NOT NULL REFERENCES device (uid) ON DELETE CASCADE,
    key TEXT NOT NULL,
    seq INTEGER NOT NULL,
    stamp INTEGER NOT NULL,
    value BLOB,
    PRIMARY KEY (stream, key)
) WITHOUT ROWID;

-- Whether devices are connected. sequence: the number that another hub gave to that.
CREATE TABLE connection_state (
    stream INTEGER PRIMARY KEY REFERENCES device (uid) ON DELETE CASCADE,
    connected INTEGER NOT NULL,
    stamp INTEGER NOT NULL,
    heard INTEGER NOT NULL,
    sequence TEXT NOT NULL
);

-- Sessions of live data.
CREATE TABLE live_session (
    id TEXT PRIMARY KEY,
    by_grant INTEGER NOT NULL,
    met INTEGER NOT NULL
) WITHOUT ROWID;

-- What they were granted, and what they are subscribed to (subscribed = 1). device: its id as it was
-- written, which nothing else needs to know; access: the right; selector: NULL for all of them.
CREATE TABLE live_session_grant (
    session TEXT NOT NULL REFERENCES live_session (id) ON DELETE CASCADE,
    subscribed INTEGER NOT NULL,
    device TEXT NOT NULL,
    access TEXT NOT NULL,
    selector TEXT
);
CREATE UNIQUE INDEX live_session_grant_ ON live_session_grant
    (session, subscribed, device, access, coalesce(selector, ''), selector IS NULL);

-- The keys with which devices sign what they send.
CREATE TABLE device_secret (
    uid INTEGER PRIMARY KEY REFERENCES device (uid) ON DELETE CASCADE,
    secret BLOB NOT NULL
);

-- Secrets of the gateway's own.
CREATE TABLE secret (
    name TEXT PRIMARY KEY,
    secret BLOB NOT NULL
) WITHOUT ROWID;

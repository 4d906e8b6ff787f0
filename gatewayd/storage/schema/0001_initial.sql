-- The first schema. ts, stamp, updated, ...: milliseconds since the epoch, UTC.

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE network (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    description TEXT
);

CREATE TABLE device_type (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    description TEXT
);

-- AUTOINCREMENT: a uid names a timeline, so it is never given out again.
CREATE TABLE device (
    uid INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    id_fold TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    network INTEGER NOT NULL REFERENCES network (id),
    type INTEGER NOT NULL REFERENCES device_type (id),
    data BLOB,
    blocked INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX device_network ON device (network);
CREATE INDEX device_type_ ON device (type);
CREATE INDEX device_name ON device (name);

-- The hash of the key with which a device proves to be itself.
CREATE TABLE device_key (
    uid INTEGER PRIMARY KEY REFERENCES device (uid) ON DELETE CASCADE,
    hash TEXT NOT NULL
);

CREATE TABLE user (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    login TEXT NOT NULL UNIQUE,
    role INTEGER NOT NULL,
    status INTEGER NOT NULL,
    password TEXT NOT NULL,
    last_login INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    data BLOB,
    intro_reviewed INTEGER NOT NULL DEFAULT 0,
    all_types INTEGER NOT NULL DEFAULT 1
);

CREATE TABLE user_network (
    user INTEGER NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    network INTEGER NOT NULL REFERENCES network (id) ON DELETE CASCADE,
    PRIMARY KEY (user, network)
) WITHOUT ROWID;
CREATE INDEX user_network_ ON user_network (network);

CREATE TABLE user_device_type (
    user INTEGER NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    device_type INTEGER NOT NULL REFERENCES device_type (id) ON DELETE CASCADE,
    PRIMARY KEY (user, device_type)
) WITHOUT ROWID;
CREATE INDEX user_device_type_ ON user_device_type (device_type);

CREATE TABLE configuration (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    value TEXT NOT NULL,
    version INTEGER NOT NULL DEFAULT 0
);

-- The head of each device's timeline: the last sequence number and time given out, and the epoch
-- of its latest exclusive attachment.
CREATE TABLE stream (
    uid INTEGER PRIMARY KEY REFERENCES device (uid) ON DELETE CASCADE,
    epoch INTEGER NOT NULL DEFAULT 0,
    seq INTEGER NOT NULL DEFAULT 0,
    ts INTEGER NOT NULL DEFAULT 0
);

-- The log. position is the order of commits over all devices; seq is gapless per device.
-- ref is the seq of the command that an update belongs to.
CREATE TABLE event (
    position INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    stamp INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    name TEXT NOT NULL,
    body BLOB,
    network INTEGER NOT NULL,
    type INTEGER NOT NULL,
    ref INTEGER NOT NULL
);
CREATE UNIQUE INDEX event_stream ON event (stream, seq, ts);
CREATE INDEX event_listing ON event (stream, kind, stamp, seq);
CREATE INDEX event_ts ON event (ts);

CREATE TABLE command (
    stream INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    name TEXT NOT NULL,
    network INTEGER NOT NULL,
    type INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    stamp INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    user INTEGER,
    parameters BLOB,
    lifetime INTEGER,
    status TEXT,
    result BLOB,
    changed INTEGER NOT NULL DEFAULT 0,
    delivery INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (stream, seq)
) WITHOUT ROWID;
CREATE INDEX command_listing ON command (stream, stamp, seq);
CREATE INDEX command_updated ON command (updated);
CREATE INDEX command_pending ON command (stream, seq) WHERE delivery < 2 AND changed = 0;

CREATE TABLE idempotency (
    key TEXT PRIMARY KEY,
    stream INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    ts INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX idempotency_ts ON idempotency (ts);

-- Timelines whose device is gone; their rows are dropped piece by piece.
CREATE TABLE orphan (
    stream INTEGER PRIMARY KEY
);

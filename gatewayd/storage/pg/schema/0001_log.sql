-- The log. ts, stamp, updated, ...: milliseconds since the epoch, UTC. The devices are in 0002, and
-- with them what makes a timeline end with its device.

CREATE TABLE meta (
    name text COLLATE "C" PRIMARY KEY,
    value bigint NOT NULL
);

-- The end of the log, one row: the last position given out, and the latest time. Who appends locks
-- it first, so that positions grow in the order of commits, whoever commits.
CREATE TABLE log_end (
    position bigint NOT NULL,
    ts bigint NOT NULL
);
CREATE UNIQUE INDEX log_end_one ON log_end ((true));
INSERT INTO log_end VALUES (0, 0);

-- The head of each device's timeline: the last sequence number and time given out, and the epoch
-- of its latest exclusive attachment. Room for updates in place: a row changes with every batch.
CREATE TABLE stream (
    uid bigint PRIMARY KEY,
    epoch bigint NOT NULL DEFAULT 0,
    seq bigint NOT NULL DEFAULT 0,
    ts bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- position is the order of commits over all devices; seq is gapless per device.
-- ref is the seq of the command that an update belongs to.
CREATE TABLE event (
    position bigint PRIMARY KEY,
    stream bigint NOT NULL,
    seq bigint NOT NULL,
    ts bigint NOT NULL,
    stamp bigint NOT NULL,
    kind bigint NOT NULL,
    name text COLLATE "C" NOT NULL,
    body bytea,
    network bigint NOT NULL,
    type bigint NOT NULL,
    ref bigint NOT NULL
);
CREATE UNIQUE INDEX event_stream ON event (stream, seq);
CREATE INDEX event_listing ON event (stream, kind, stamp, seq);
CREATE INDEX event_ts ON event (ts);

-- user_id: nobody has to know the user any more.
CREATE TABLE command (
    stream bigint NOT NULL,
    seq bigint NOT NULL,
    name text COLLATE "C" NOT NULL,
    network bigint NOT NULL,
    type bigint NOT NULL,
    ts bigint NOT NULL,
    stamp bigint NOT NULL,
    updated bigint NOT NULL,
    user_id bigint,
    parameters bytea,
    lifetime bigint,
    status text COLLATE "C",
    result bytea,
    changed boolean NOT NULL DEFAULT false,
    delivery bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (stream, seq)
);
CREATE INDEX command_listing ON command (stream, stamp, seq);
CREATE INDEX command_updated ON command (updated);
CREATE INDEX command_pending ON command (stream, seq) WHERE delivery < 2 AND NOT changed;

CREATE TABLE idempotency (
    key text COLLATE "C" PRIMARY KEY,
    stream bigint NOT NULL,
    seq bigint NOT NULL,
    ts bigint NOT NULL
);
CREATE INDEX idempotency_ts ON idempotency (ts);

-- Timelines whose device is gone; their rows are dropped piece by piece.
CREATE TABLE orphan (
    stream bigint PRIMARY KEY
);

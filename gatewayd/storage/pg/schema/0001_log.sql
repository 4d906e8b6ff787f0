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
-- Each day (UTC) has a partition, made ahead, so that it is dropped whole; the default one takes
-- what comes at any other time. No index over several partitions is unique: positions and numbers
-- are, because who gives them out has locked log_end and the timeline.
CREATE TABLE event (
    position bigint NOT NULL,
    stream bigint NOT NULL,
    seq bigint NOT NULL,
    ts bigint NOT NULL,
    stamp bigint NOT NULL,
    kind bigint NOT NULL,
    name text COLLATE "C" NOT NULL,
    body bytea,
    network bigint NOT NULL,
    type bigint NOT NULL,
    ref bigint NOT NULL,
    PRIMARY KEY (position, ts)
) PARTITION BY RANGE (ts);
CREATE INDEX event_stream ON event (stream, seq);
CREATE INDEX event_listing ON event (stream, kind, stamp, seq);
CREATE INDEX event_ts ON event (ts);
CREATE TABLE event_default PARTITION OF event DEFAULT;

-- Make the partition of a day and tell whether it was made: it is not when there are rows of it in
-- the default partition, or while that is in use; who reads or writes must not be held up for long.
-- Attached, not made as a partition: that would lock out those who use the others, too.
CREATE FUNCTION add_event_day(day text, low bigint, high bigint) RETURNS boolean
LANGUAGE plpgsql SET lock_timeout = '200ms' AS $$
BEGIN
    PERFORM 1 FROM event_default WHERE ts >= low AND ts < high LIMIT 1;
    IF FOUND THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE event)', day);
    EXECUTE format(
        'ALTER TABLE event ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', day, low, high);
    RETURN true;
EXCEPTION WHEN lock_not_available OR check_violation THEN
    RETURN false;
END $$;

-- Drop the partition of a day. The latest time in it, 0 if it was empty; NULL: it is in use.
CREATE FUNCTION drop_event_day(day text) RETURNS bigint
LANGUAGE plpgsql SET lock_timeout = '200ms' AS $$
DECLARE
    latest bigint;
BEGIN
    EXECUTE format('ALTER TABLE event DETACH PARTITION %I', day);
    EXECUTE format('SELECT coalesce(max(ts), 0) FROM %I', day) INTO latest;
    EXECUTE format('DROP TABLE %I', day);
    RETURN latest;
EXCEPTION WHEN lock_not_available THEN
    RETURN NULL;
END $$;

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

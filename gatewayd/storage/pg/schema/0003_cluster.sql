-- What the nodes that share this database keep together.

-- Who is there. until: when its lease ends, by this server's clock; incarnation: greater each
-- time, whoever takes whichever name; fingerprint: of what all nodes have to have in common.
CREATE SEQUENCE incarnation;
CREATE TABLE node (
    name text COLLATE "C" PRIMARY KEY,
    incarnation bigint NOT NULL,
    advertise text COLLATE "C" NOT NULL,
    fingerprint bytea NOT NULL,
    until timestamptz NOT NULL
) WITH (fillfactor = 50);

-- The live sockets of devices. number: the node's incarnation, and 32 bits; epoch: NULL for one that
-- shares; since: ms since the epoch. A node whose attachments are here is in the table above.
CREATE TABLE attachment (
    node text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    stream bigint NOT NULL REFERENCES device (uid) ON DELETE CASCADE,
    protocol text COLLATE "C" NOT NULL,
    epoch bigint,
    since bigint NOT NULL,
    PRIMARY KEY (node, number)
);
CREATE INDEX attachment_stream ON attachment (stream);

-- What was changed in the registry, for the other nodes, one row each in the order of the commits:
-- who changes something locks the one row of change_end. subject: JSON.
CREATE TABLE change_end (
    number bigint NOT NULL
);
CREATE UNIQUE INDEX change_end_one ON change_end ((true));
INSERT INTO change_end VALUES (0);
CREATE TABLE change (
    number bigint PRIMARY KEY,
    node text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    subject bytea NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX change_at ON change (at);

-- Which nodes have connections of a plugin.
CREATE TABLE plugin_node (
    plugin bigint NOT NULL REFERENCES plugin (id) ON DELETE CASCADE,
    node text COLLATE "C" NOT NULL REFERENCES node (name) ON DELETE CASCADE,
    PRIMARY KEY (plugin, node)
);
CREATE INDEX plugin_node_ ON plugin_node (node);

-- When some node last knew a session to be used, in ms since the epoch.
ALTER TABLE live_session ADD COLUMN used bigint NOT NULL DEFAULT 0;

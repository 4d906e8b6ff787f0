-- Plugins. filter: a JSON object without the fields that mean any; subscription: a number while
-- the plugin is active. AUTOINCREMENT: ids are public, so they are never given out again.
CREATE TABLE plugin (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    description TEXT,
    topic TEXT NOT NULL UNIQUE,
    filter BLOB NOT NULL,
    status INTEGER NOT NULL,
    subscription INTEGER,
    user INTEGER NOT NULL REFERENCES user (id) ON DELETE CASCADE,
    parameters BLOB
);
CREATE INDEX plugin_user ON plugin (user);

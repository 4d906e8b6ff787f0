-- When a session was last known to be used, in ms since the epoch.
ALTER TABLE live_session ADD COLUMN used INTEGER NOT NULL DEFAULT 0;

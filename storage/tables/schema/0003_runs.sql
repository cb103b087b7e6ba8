-- How many times the server has been started on these tables; homeserver/same_time.py says what for.
ALTER TABLE log_binding ADD COLUMN runs bigint NOT NULL DEFAULT 0;

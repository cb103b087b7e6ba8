-- A server's answers that hold keys which its newest answer lacks stay, so that a notary can still give those keys out.

ALTER TABLE server_key_answers DROP CONSTRAINT server_key_answers_pkey;
ALTER TABLE server_key_answers ADD COLUMN key_ids text[] NOT NULL DEFAULT '{}';
CREATE INDEX server_key_answers_server_name ON server_key_answers (server_name, fetched_ts);

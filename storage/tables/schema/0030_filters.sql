-- Filters that clients stored for their syncs. The name derives from the content: the same filter is stored once.

CREATE TABLE filters (
    user_id text NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    filter_id text NOT NULL,
    filter_json text NOT NULL,
    PRIMARY KEY (user_id, filter_id)
);

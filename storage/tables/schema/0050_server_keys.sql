-- Public keys of other servers, and the signed answers that they came in, which we give out as a notary.

CREATE TABLE server_keys (
    server_name    text NOT NULL,
    key_id         text NOT NULL,
    verify_key     bytea NOT NULL,
    valid_until_ts bigint NOT NULL,     -- for a retired key: when it was retired
    PRIMARY KEY (server_name, key_id)
);

CREATE TABLE server_key_answers (
    server_name    text PRIMARY KEY,
    answer_json    text NOT NULL,
    valid_until_ts bigint NOT NULL,
    fetched_ts     bigint NOT NULL
);

-- Domains whose signed well-known record we have seen: the keys that signed it and where it pointed.

CREATE TABLE well_known_pins (
    server_name    text PRIMARY KEY,
    keys_json      text NOT NULL,       -- key id to unpadded base64
    address        text NOT NULL,
    valid_until_ts bigint NOT NULL,
    pinned_ts      bigint NOT NULL
);

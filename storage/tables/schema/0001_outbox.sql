-- Changes that the log has to learn about; see storage/tables/outbox.py.
CREATE TABLE outbox (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind    text NOT NULL,
    payload text NOT NULL
);

-- What users reported to the people who run this server; see storage/tables/reports.py.
CREATE TABLE reports (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    reported_ts bigint NOT NULL,
    reporter    text NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('room', 'event', 'user')),
    room_id     text,
    event_id    text,
    user_id     text,
    reason      text
);
CREATE INDEX reports_by_room ON reports (room_id) WHERE room_id IS NOT NULL;
CREATE INDEX reports_by_user ON reports (user_id) WHERE user_id IS NOT NULL;

-- Which log belongs to these tables; see storage/tables/log_binding.py. At most one row.
CREATE TABLE log_binding (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch    text NOT NULL
);

//! Talks to PostgreSQL: its processes, its files and its SQL.

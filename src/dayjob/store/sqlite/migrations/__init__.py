"""The SQLite engine's schema, step by step."""

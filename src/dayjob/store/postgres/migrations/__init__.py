"""The PostgreSQL engine's schema, step by step."""

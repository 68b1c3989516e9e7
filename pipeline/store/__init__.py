"""The store: a port and its PostgreSQL adapter."""

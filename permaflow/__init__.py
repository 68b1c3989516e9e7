"""Permaflow's public contract: what task types, connectors, dialects and clients import."""

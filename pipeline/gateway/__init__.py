"""Vertex: HTTP in."""

"""Workflows as pictures: what a plan says, laid out, as SVG, Mermaid or DOT."""

"""Expressions in CEL: tokens, syntax, meaning."""

"""The same chain of no-op steps on other engines, each in an environment of its own."""

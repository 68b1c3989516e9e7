"""A shop that takes orders, and workflows that answer them: the engine shown on real input."""

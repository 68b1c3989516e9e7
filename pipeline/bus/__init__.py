"""The bus: a port and its JetStream adapter."""

"""Atoll's operations: the agent that keeps instances alive, the operators' API, and the `./atoll` command line."""

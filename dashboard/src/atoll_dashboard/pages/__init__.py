"""The pages. Each `body` draws from one View and holds no state of its own."""

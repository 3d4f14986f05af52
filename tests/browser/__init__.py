"""The dashboard in a real browser, and what it refuses from outside."""

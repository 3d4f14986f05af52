"""Contracts between parts: read them, compare them, and tell the whole as one AsyncAPI document. No bus is needed."""

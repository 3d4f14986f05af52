"""Durable, authenticated publish/subscribe broker on one ZeroMQ ROUTER."""

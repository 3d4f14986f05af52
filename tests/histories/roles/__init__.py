"""What runs as a process of its own, with a history of its own: `python -m histories.roles.NAME CONFIG LIFE`."""

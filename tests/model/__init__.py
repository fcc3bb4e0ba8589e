"""A small reference model of the store in plain Python, and a state machine that holds every engine against it."""

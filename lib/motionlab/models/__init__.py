"""The testbed's networks: codec, text, small video DiT. They know the world's grammar and no paper."""

"""The kit's own small video generator and its codec."""

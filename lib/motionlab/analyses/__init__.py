"""The papers' diagnoses of a video DiT, on any backbone: none of them trains anything."""

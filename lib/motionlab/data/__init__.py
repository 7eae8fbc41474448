"""Clips, latents with named sidecars, prompts and tasks. Knows no paper."""

"""Video generators of others, from a diffusers snapshot in a local folder."""

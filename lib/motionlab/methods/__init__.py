"""One `Method` per paper: what it attaches, wants, learns and how it samples."""

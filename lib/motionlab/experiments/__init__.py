"""What every experiment of every paper shares, by the one protocol: prompts, fine-tunes, sampling, measuring."""

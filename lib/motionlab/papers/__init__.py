"""One module per paper, readable beside it; they never import one another."""

"""The trained models of motionlab, at their paths in its repository: data for `motionlab init`, no code."""

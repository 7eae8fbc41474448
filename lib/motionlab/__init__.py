"""motionlab: re-run, measure and judge what papers claim about motion in video diffusion models."""

__version__ = "0.1.0"

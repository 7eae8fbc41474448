"""Real clips in and out."""
import importlib as _i

globals().update({k: v for k, v in vars(_i.import_module("motionlab.video.video")).items() if not k.startswith("__")})

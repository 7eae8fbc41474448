"""Looking inside a transformer."""
import importlib as _i

globals().update({k: v for k, v in vars(_i.import_module("motionlab.taps.taps")).items() if not k.startswith("__")})

"""One training loop for every model of the kit."""
import importlib as _i

globals().update({k: v for k, v in vars(_i.import_module("motionlab.training.loop")).items() if not k.startswith("__")})

"""Every figure of the kit."""
import importlib as _i

globals().update({k: v for k, v in vars(_i.import_module("motionlab.figures.figures")).items() if not k.startswith("__")})

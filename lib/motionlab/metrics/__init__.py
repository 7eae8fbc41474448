"""Metrics: paper form beside released form. Import the module you need, for example `motionlab.metrics.motion`."""

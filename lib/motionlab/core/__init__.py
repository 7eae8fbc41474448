"""What everything stands on and that knows nothing of the kit: errors, files, settings, random numbers, statistics."""

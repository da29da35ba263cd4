"""Programs: eval, train and report: short loops over environments, models and engines."""

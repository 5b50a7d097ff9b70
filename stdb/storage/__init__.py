"""Files: the durable log, the control file, the data directory, module logs."""

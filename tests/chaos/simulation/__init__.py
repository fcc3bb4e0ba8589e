"""Hours of a cluster's life in seconds: the real worker on a virtual clock, driven from one seed."""

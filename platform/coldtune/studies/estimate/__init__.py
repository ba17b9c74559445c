"""The estimated cost of a study before it runs."""

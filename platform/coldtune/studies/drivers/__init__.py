"""The driver processes of a study: which of them are alive, and which of them leads."""

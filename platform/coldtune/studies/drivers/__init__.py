"""Several driver processes of one study: which are alive, and which one leads."""

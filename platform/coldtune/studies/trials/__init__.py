"""The ledger of trials: ask, tell, count, import and promote them."""

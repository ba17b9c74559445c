"""The trials of a study: asking and telling them, owning them, reading, importing and finding them."""

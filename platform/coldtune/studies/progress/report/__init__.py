"""Gathering the report of a study from its home, without Ray: the document that `coldtune.reports.page` renders."""

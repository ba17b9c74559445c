"""The page of a study: a document of plain values, and its renderings as HTML, Markdown, LaTeX and JSON."""

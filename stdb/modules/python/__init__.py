"""Python modules, from the author's decorators to reducers that a database calls.

In reading order: `columns`, `rows`, `tables`, `functions` (what an author writes) · `declarations`, `annotations`,
`definition` (what it means) · `archive`, `ignore`, `importer`, `loader` (how it gets here) · `module`, `context`,
`database`, `table`, `accessors`, `conditions`, `query` (what it meets) · `output`, `blocking` (what it says).
"""

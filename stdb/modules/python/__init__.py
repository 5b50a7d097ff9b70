"""Python modules, from the author's decorators to reducers that a database calls.

In reading order: `columns`, `rows`, `tables`, `functions`, `views`, `procedures`, `routes` (what an author writes) ·
`declarations`, `annotations`, `signatures`, `schedules`, `definition` (what it means) · `archive`, `ignore`,
`importer`, `loader` (how it gets here) · `module`, `entries`, `steps` (how it is called) · `context`, `database`,
`table`, `accessors`, `reader`, `conditions`, `query`, `http` (what it meets) · `output`, `blocking` (what it says).
"""
